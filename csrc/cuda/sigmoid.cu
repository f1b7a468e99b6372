// The logistic sigmoid, 1 / (1 + e^-x), and its backward pass from the output. With e^-|x| nothing
// overflows.
#include <cmath>

#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

struct SigmoidFunctor {
  template <class T>
  __device__ T operator()(T v) const {
    const T e = ::exp(-::fabs(v));
    return (v > T(0) ? T(1) : e) / (T(1) + e);
  }
  template <class T>
  __device__ T operator()(T gradient, T v) const {
    return gradient * (v * (T(1) - v));
  }
};

}  // namespace

template <class T>
void sigmoid(const T* x, T* y, int64_t n) {
  map(n, y, SigmoidFunctor(), x);
}

template <class T>
void sigmoid_backward(const T* dy, const T* y, T* dx, int64_t n) {
  map(n, dx, SigmoidFunctor(), dy, y);
}

CR_INSTANTIATE(sigmoid);
CR_INSTANTIATE(sigmoid_backward);

}  // namespace chainrule::cuda
