// Gradient descent, eq. (6), with the L2 term of eq. (8) and (42), and momentum:
//   g = gradient + 2 λ θ      v = μ v + g      θ = θ - η v, or with Nesterov θ - η (g + μ v)
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
void sgd(T* parameters, const T* gradient, T* velocity, const Sgd& s) {
  using V = Vec<T>;
  const V decay = V::set(static_cast<T>(2 * s.l2));
  const V momentum = V::set(static_cast<T>(s.momentum));
  const V step = V::set(static_cast<T>(-s.learning_rate));
  const bool has_velocity = velocity != nullptr, nesterov = s.nesterov;
  parallel_for_ranges(s.size, elementwise_multiple, elementwise_range, 2,
                      [=](int64_t begin, int64_t end) {
                        const auto update = [=](int64_t i, auto lanes) {
                          const V theta = lanes.load(parameters + i);
                          const V g = fma(decay, theta, lanes.load(gradient + i));
                          V direction = g;
                          if (has_velocity) {
                            const V v = fma(momentum, lanes.load(velocity + i), g);
                            lanes.store(v, velocity + i);
                            direction = nesterov ? fma(momentum, v, g) : v;
                          }
                          lanes.store(fma(step, direction, theta), parameters + i);
                        };
                        int64_t i = begin;
#pragma GCC unroll 4
                        for (; i + V::width <= end; i += V::width) update(i, FullVector());
                        if (i < end) update(i, PartialVector{end - i});
                      });
}

CR_INSTANTIATE(sgd);

}  // namespace chainrule::CR_ISA
