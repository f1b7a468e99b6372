// Leaky ReLU (text after eq. 13): a small slope below 0, so that no unit stops learning.
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct LeakyReluFunctor {
  T slope;

  __device__ T operator()(T v) const { return v > T(0) ? v : slope * v; }
  __device__ T operator()(T gradient, T v) const { return v > T(0) ? gradient : slope * gradient; }
};

}  // namespace

template <class T>
void leaky_relu(const T* x, T* y, double slope, int64_t n) {
  map(n, y, LeakyReluFunctor<T>{static_cast<T>(slope)}, x);
}

template <class T>
void leaky_relu_backward(const T* dy, const T* x, T* dx, double slope, int64_t n) {
  map(n, dx, LeakyReluFunctor<T>{static_cast<T>(slope)}, dy, x);
}

CR_INSTANTIATE(leaky_relu);
CR_INSTANTIATE(leaky_relu_backward);

}  // namespace chainrule::cuda
