// The number of correct predictions of a batch, for the accuracy of a training step.
#pragma once

#include <cstdint>

namespace chainrule {

// Returns the number of rows of `output` (rows x columns) whose first maximum is at the row's
// class. One column is the logit of class 1, against class 0: the prediction is 1 if it is
// positive. A row whose class is out of range, or that contains NaN, is not correct.
template <class T>
int64_t count_correct(const T* output, const int64_t* classes, int64_t rows,
                      int64_t columns) noexcept;

extern template int64_t count_correct(const float*, const int64_t*, int64_t, int64_t) noexcept;
extern template int64_t count_correct(const double*, const int64_t*, int64_t, int64_t) noexcept;

}  // namespace chainrule
