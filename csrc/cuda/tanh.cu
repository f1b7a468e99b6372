// The hyperbolic tangent, and its backward pass from the output.
#include <cmath>

#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

struct TanhFunctor {
  template <class T>
  __device__ T operator()(T v) const {
    return ::tanh(v);
  }
  template <class T>
  __device__ T operator()(T gradient, T v) const {
    return gradient * ((T(1) - v) * (T(1) + v));
  }
};

}  // namespace

template <class T>
void tanh(const T* x, T* y, int64_t n) {
  map(n, y, TanhFunctor(), x);
}

template <class T>
void tanh_backward(const T* dy, const T* y, T* dx, int64_t n) {
  map(n, dx, TanhFunctor(), dy, y);
}

CR_INSTANTIATE(tanh);
CR_INSTANTIATE(tanh_backward);

}  // namespace chainrule::cuda
