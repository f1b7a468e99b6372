// Gradient descent, eq. (6), with the L2 term of eq. (8) and (42), and momentum:
//   g = gradient + 2 λ θ      v = μ v + g      θ = θ - η v, or θ - η (g + μ v) after Nesterov
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
void sgd(T* parameters, const T* gradient, T* velocity, const Sgd& s) {
  using V = Vec<T>;
  const V decay = V::set(static_cast<T>(2 * s.l2));
  const V momentum = V::set(static_cast<T>(s.momentum));
  const V step = V::set(static_cast<T>(-s.learning_rate));
  parallel_ranges(s.size, elementwise_piece, 2, [&](int64_t begin, int64_t end) {
    const auto update = [&](int64_t i, auto load, auto store) {
      const V theta = load(parameters + i);
      const V g = fma(decay, theta, load(gradient + i));
      V direction = g;
      if (velocity) {
        const V v = fma(momentum, load(velocity + i), g);
        store(v, velocity + i);
        direction = s.nesterov ? fma(momentum, v, g) : v;
      }
      store(fma(step, direction, theta), parameters + i);
    };
    int64_t i = begin;
    for (; i + V::width <= end; i += V::width) {
      update(i, [](const T* p) { return V::load(p); }, [](V v, T* p) { v.store(p); });
    }
    const int64_t left = end - i;
    if (left > 0) {
      update(
          i, [=](const T* p) { return V::load(p, left, T(0)); },
          [=](V v, T* p) { v.store(p, left); });
    }
  });
}

CR_INSTANTIATE(sgd);

}  // namespace chainrule::CR_ISA
