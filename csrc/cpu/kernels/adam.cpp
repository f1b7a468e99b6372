// Adam (Kingma and Ba, 2015), with the L2 term of eq. (8) and (42), or with decoupled weight decay
// (Loshchilov and Hutter, 2019):
//   g = gradient + 2 λ θ      m = β1 m + (1 - β1) g      v = β2 v + (1 - β2) g²
//   θ = θ - η w θ - η / (1 - β1^t) m / (√v / √(1 - β2^t) + ε)
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

// Returns 1 - β^t from q(m + n) = q(m) + q(n) (1 - q(m)), where q(n) = 1 - β^n. Nothing cancels,
// and the bits do not depend on a library's pow.
double bias_correction(double beta, uint64_t step) {
  double result = 0;
  for (double power = 1 - beta; step > 0; step /= 2) {
    if (step % 2 == 1) result += power * (1 - result);
    power *= 2 - power;
  }
  return result;
}

}  // namespace

template <class T>
void adam(T* parameters, const T* gradient, T* first_moment, T* second_moment, const Adam& s) {
  using V = Vec<T>;
  const V l2 = V::set(static_cast<T>(2 * s.l2));
  const V beta1 = V::set(static_cast<T>(s.beta1)), share1 = V::set(static_cast<T>(1 - s.beta1));
  const V beta2 = V::set(static_cast<T>(s.beta2)), share2 = V::set(static_cast<T>(1 - s.beta2));
  const V decay = V::set(static_cast<T>(-s.learning_rate * s.weight_decay));
  const V rate = V::set(static_cast<T>(-s.learning_rate / bias_correction(s.beta1, s.step)));
  const V scale = V::set(static_cast<T>(1 / __builtin_sqrt(bias_correction(s.beta2, s.step))));
  const V eps = V::set(static_cast<T>(s.eps));
  parallel_for_ranges(
      s.size, elementwise_multiple, elementwise_range, 4, [=](int64_t begin, int64_t end) {
        const auto update = [=](int64_t i, auto lanes) {
          const V theta = lanes.load(parameters + i);
          const V g = fma(l2, theta, lanes.load(gradient + i));
          const V m = fma(beta1, lanes.load(first_moment + i), share1 * g);
          const V v = fma(beta2, lanes.load(second_moment + i), share2 * (g * g));
          lanes.store(m, first_moment + i);
          lanes.store(v, second_moment + i);
          const V direction = m / fma(sqrt(v), scale, eps);
          lanes.store(fma(rate, direction, fma(decay, theta, theta)), parameters + i);
        };
        int64_t i = begin;
#pragma GCC unroll 4
        for (; i + V::width <= end; i += V::width) update(i, FullVector());
        if (i < end) update(i, PartialVector{end - i});
      });
}

CR_INSTANTIATE(adam);

}  // namespace chainrule::CR_ISA
