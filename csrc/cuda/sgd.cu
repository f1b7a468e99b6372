// SGD, eq. (6), with the L2 term of eq. (8) and (42), and momentum:
//    g = gradient + 2 λ θ      v = μ v + g      θ = θ - η v, or θ - η (g + μ v) with Nesterov
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct SgdFunctor {
  T* parameters;
  const T* gradient;
  T* velocity;
  T weight_decay, momentum;
  double learning_rate;
  const double* device_learning_rate;
  bool nesterov;

  struct Registers {
    T theta[4], gradient[4], velocity[4];
    double learning_rate;
  };
  template <bool full>
  __device__ __forceinline__ void load(const Vec4<full>& vec4, Registers& registers) const {
    vec4.load(parameters, registers.theta);
    vec4.load(gradient, registers.gradient);
    if (velocity) vec4.load(velocity, registers.velocity);
    registers.learning_rate = device_learning_rate ? *device_learning_rate : learning_rate;
  }
  template <bool full>
  __device__ __forceinline__ void store(const Vec4<full>& vec4, Registers& registers) const {
    if (!(registers.learning_rate - registers.learning_rate == 0)) return;
    const T step = static_cast<T>(-registers.learning_rate);
    T direction[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      direction[i] = fma(weight_decay, registers.theta[i], registers.gradient[i]);
    if (velocity) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T g = direction[i], v = fma(momentum, registers.velocity[i], g);
        registers.velocity[i] = v;
        direction[i] = nesterov ? fma(momentum, v, g) : v;
      }
      vec4.store(registers.velocity, velocity);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) registers.theta[i] = fma(step, direction[i], registers.theta[i]);
    vec4.store(registers.theta, parameters);
  }
};

}  // namespace

template <class T>
void sgd(T* parameters, const T* gradient, T* velocity, const Sgd& s) {
  const T* const velocity_or_parameters = velocity ? velocity : parameters;
  launch_elementwise(
      SgdFunctor<T>{.parameters = parameters,
                    .gradient = gradient,
                    .velocity = velocity,
                    .weight_decay = static_cast<T>(2 * s.l2),
                    .momentum = static_cast<T>(s.momentum),
                    .learning_rate = s.learning_rate,
                    .device_learning_rate = s.device_learning_rate,
                    .nesterov = s.nesterov},
      Vec4Layout::starting_aligned<T>(s.size, {parameters, gradient, velocity_or_parameters}));
}

CR_INSTANTIATE(sgd);

}  // namespace chainrule::cuda
