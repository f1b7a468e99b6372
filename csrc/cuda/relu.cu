// eq. (15) and (16). Written as "0 where <= 0" so that NaN passes and -0 becomes 0.
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

struct Rectify {
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
  map(n, y, Rectify(), x);
}

template <class T>
void relu_backward(const T* dy, const T* y, T* dx, int64_t n) {
  map(n, dx, Rectify(), dy, y);
}

CR_INSTANTIATE(relu);
CR_INSTANTIATE(relu_backward);

}  // namespace chainrule::cuda
