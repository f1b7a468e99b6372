// ReLU, eq. (15) and (16). Computed as "0 if x <= 0", so that NaN propagates and -0 becomes 0.
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

struct ReluFunctor {
  template <class T>
  __device__ T operator()(T v) const {
    return v <= T(0) ? T(0) : v;
  }
  template <class T>
  __device__ T operator()(T gradient, T v) const {
    return v <= T(0) ? T(0) : gradient;
  }
};

}  // namespace

template <class T>
void relu(const T* x, T* y, int64_t n) {
  map(n, y, ReluFunctor(), x);
}

template <class T>
void relu_backward(const T* dy, const T* y, T* dx, int64_t n) {
  map(n, dx, ReluFunctor(), dy, y);
}

CR_INSTANTIATE(relu);
CR_INSTANTIATE(relu_backward);

}  // namespace chainrule::cuda
