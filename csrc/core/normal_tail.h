// The tail of the standard normal distribution, as numbers that the CPU and CUDA kernels share:
//
//   Φ(-a) = e^(-a²/2) · P(q) / (a + shift) with q = (a - shift) / (a + shift), 0 <= a <= largest
//
// P interpolates Φ(-a) e^(a²/2) (a + shift) at the Chebyshev nodes of q, computed with 60 digits.
// Its relative error is below a twentieth of the rounding error. From `largest` on, a · Φ(-a) and
// a · φ(a) round to 0.
//
// This file must not define functions: see shape.h.
#pragma once

namespace chainrule {

template <class T>
struct NormalTail;

template <>
struct NormalTail<float> {
  static constexpr float shift = 3, largest = 15;
  static constexpr int degree = 10;
  static constexpr float coefficients[degree + 1] = {
      0x1.754a76p-1f,   -0x1.04c72ap-1f, 0x1.d71382p-3f,  -0x1.832d32p-5f,
      -0x1.56d40ap-7f,  0x1.c8c7dcp-8f,  0x1.0c7a08p-10f, -0x1.0f2e8cp-10f,
      -0x1.0098a8p-12f, 0x1.1799c0p-13f, 0x1.d17fe4p-15f};
  static constexpr float density_at_zero = 0.398942280401432678f;  // 1 / sqrt(2 π)
};

template <>
struct NormalTail<double> {
  static constexpr double shift = 4.5, largest = 39;
  static constexpr int degree = 23;
  static constexpr double coefficients[degree + 1] = {
      0x1.86c626e278bb3p-1,   -0x1.47cfdd7a97245p-1,  0x1.c92ad93fe2551p-2,  -0x1.03379aa028f18p-2,
      0x1.c8391e19cb8f9p-4,   -0x1.157951c67e5bcp-5,  0x1.14cc79599a713p-8,  0x1.ca72085e56c3fp-10,
      -0x1.e129dad710c16p-11, 0x1.ac3b7c51930efp-18,  0x1.d5f130009ffffp-14, -0x1.0b5044aea7badp-16,
      -0x1.ddb5ff08e4b30p-17, 0x1.ac32ab606093bp-19,  0x1.1ff489a7a6b56p-19, -0x1.0c9e4a083fde9p-21,
      -0x1.9bba63005a817p-22, 0x1.08604822fe199p-24,  0x1.407e9ca3cc2fep-24, -0x1.3ab8d70e30c60p-29,
      -0x1.ceb8ffa3f33b4p-27, -0x1.d9f564260592dp-30, 0x1.b29b195625dd4p-30, 0x1.fc72985e51de2p-32};
  static constexpr double density_at_zero = 0.398942280401432678;
};

}  // namespace chainrule
