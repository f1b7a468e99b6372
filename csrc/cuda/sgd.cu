// Gradient descent, eq. (6), with the L2 term of eq. (8) and (42), and momentum:
//   g = gradient + 2 λ θ      v = μ v + g      θ = θ - η v, or θ - η (g + μ v) after Nesterov
#include "cuda/elements.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct Step {
  T* parameters;
  const T* gradient;
  T* velocity;
  T decay, momentum;
  double learning_rate;
  const double* device_learning_rate;
  bool nesterov;

  struct Held {
    T theta[4], gradient[4], velocity[4];
    double learning_rate;
  };
  template <bool whole>
  __device__ __forceinline__ void load(const Four<whole>& four, Held& held) const {
    four.load(parameters, held.theta);
    four.load(gradient, held.gradient);
    if (velocity) four.load(velocity, held.velocity);
    held.learning_rate = device_learning_rate ? *device_learning_rate : learning_rate;
  }
  template <bool whole>
  __device__ __forceinline__ void store(const Four<whole>& four, Held& held) const {
    if (!(held.learning_rate - held.learning_rate == 0)) return;
    const T step = static_cast<T>(-held.learning_rate);
    T direction[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) direction[i] = fma(decay, held.theta[i], held.gradient[i]);
    if (velocity) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T g = direction[i], v = fma(momentum, held.velocity[i], g);
        held.velocity[i] = v;
        direction[i] = nesterov ? fma(momentum, v, g) : v;
      }
      four.store(held.velocity, velocity);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) held.theta[i] = fma(step, direction[i], held.theta[i]);
    four.store(held.theta, parameters);
  }
};

}  // namespace

template <class T>
void sgd(T* parameters, const T* gradient, T* velocity, const Sgd& s) {
  const T* const moved = velocity ? velocity : parameters;
  for_fours(Step<T>{.parameters = parameters,
                    .gradient = gradient,
                    .velocity = velocity,
                    .decay = static_cast<T>(2 * s.l2),
                    .momentum = static_cast<T>(s.momentum),
                    .learning_rate = s.learning_rate,
                    .device_learning_rate = s.device_learning_rate,
                    .nesterov = s.nesterov},
            Fours::anywhere<T>(s.size, {parameters, gradient, moved}));
}

CR_INSTANTIATE(sgd);

}  // namespace chainrule::cuda
