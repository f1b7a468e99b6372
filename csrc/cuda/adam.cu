// Adam (Kingma and Ba, 2015), with the L2 term of eq. (8) and (42), or with decoupled weight decay
// (Loshchilov and Hutter, 2019):
//   g = gradient + 2 λ θ      m = β1 m + (1 - β1) g      v = β2 v + (1 - β2) g²
//   θ = θ - η w θ - η / (1 - β1^t) m / (√v / √(1 - β2^t) + ε)
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

// Returns 1 - β^t, in the order of the CPU's kernel.
__device__ __forceinline__ double bias_correction(double beta, uint64_t step) {
  double result = 0;
  for (double power = 1 - beta; step > 0; step /= 2) {
    if (step % 2 == 1) result = fma(power, 1 - result, result);
    power *= 2 - power;
  }
  return result;
}

template <class T>
struct AdamFunctor {
  T* parameters;
  const T* gradient;
  T *first_moment, *second_moment;
  T beta1, share1, beta2, share2, eps, l2;
  Adam s;

  struct Registers {
    T theta[4], gradient[4], m[4], v[4];
    T decay, rate, scale;
    bool changes;
  };
  template <bool full>
  __device__ __forceinline__ void load(const Vec4<full>& vec4, Registers& registers) const {
    vec4.load(parameters, registers.theta);
    vec4.load(gradient, registers.gradient);
    vec4.load(first_moment, registers.m);
    vec4.load(second_moment, registers.v);
    // Here, before any store, so that they are computed once per thread.
    const double learning_rate = s.device_learning_rate ? *s.device_learning_rate : s.learning_rate;
    const uint64_t step = s.device_step ? *s.device_step : s.step;
    registers.changes = learning_rate - learning_rate == 0 && step > 0;
    registers.decay = static_cast<T>(-learning_rate * s.weight_decay);
    registers.rate = static_cast<T>(-learning_rate / bias_correction(s.beta1, step));
    registers.scale = static_cast<T>(1 / sqrt(bias_correction(s.beta2, step)));
  }
  template <bool full>
  __device__ __forceinline__ void store(const Vec4<full>& vec4, Registers& registers) const {
    if (!registers.changes) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const T theta = registers.theta[i];
      const T g = fma(l2, theta, registers.gradient[i]);
      const T m = fma(beta1, registers.m[i], share1 * g);
      const T v = fma(beta2, registers.v[i], share2 * (g * g));
      registers.m[i] = m;
      registers.v[i] = v;
      registers.theta[i] = fma(registers.rate, m / fma(sqrt(v), registers.scale, eps),
                               fma(registers.decay, theta, theta));
    }
    vec4.store(registers.m, first_moment);
    vec4.store(registers.v, second_moment);
    vec4.store(registers.theta, parameters);
  }
};

}  // namespace

template <class T>
void adam(T* parameters, const T* gradient, T* first_moment, T* second_moment, const Adam& s) {
  launch_elementwise(
      AdamFunctor<T>{.parameters = parameters,
                     .gradient = gradient,
                     .first_moment = first_moment,
                     .second_moment = second_moment,
                     .beta1 = static_cast<T>(s.beta1),
                     .share1 = static_cast<T>(1 - s.beta1),
                     .beta2 = static_cast<T>(s.beta2),
                     .share2 = static_cast<T>(1 - s.beta2),
                     .eps = static_cast<T>(s.eps),
                     .l2 = static_cast<T>(2 * s.l2),
                     .s = s},
      Vec4Layout::starting_aligned<T>(s.size, {parameters, gradient, first_moment, second_moment}));
}

CR_INSTANTIATE(adam);

}  // namespace chainrule::cuda
