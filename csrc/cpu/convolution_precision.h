// Precision of float32 convolutions on the CPU. The bindings set it, and the kernels read it when
// they start. It is the counterpart of cuda/gemm/precision.h.
#pragma once

namespace chainrule {

enum class ConvolutionPrecision {
  fast,     // Winograd's algorithm if the shape and the data allow it
  highest,  // sums of the products themselves, always
};

// The precision of the calling thread's next convolution.
ConvolutionPrecision convolution_precision() noexcept;
void set_convolution_precision(ConvolutionPrecision precision) noexcept;

// Overrides the precision for the calling thread while an instance exists. A Program uses it to
// replay each operation with the precision that was set when it was recorded.
class ScopedConvolutionPrecision {
 public:
  explicit ScopedConvolutionPrecision(ConvolutionPrecision precision) noexcept;
  // Ends an override in its scope: for calls of a signal handler during a replay.
  ScopedConvolutionPrecision() noexcept;
  ~ScopedConvolutionPrecision();
  ScopedConvolutionPrecision(const ScopedConvolutionPrecision&) = delete;
  ScopedConvolutionPrecision& operator=(const ScopedConvolutionPrecision&) = delete;

 private:
  const ConvolutionPrecision* before_;
  ConvolutionPrecision precision_ = ConvolutionPrecision::fast;
};

}  // namespace chainrule
