#include "cpu/convolution_precision.h"

#include <atomic>
#include <utility>

namespace chainrule {
namespace {

std::atomic<ConvolutionPrecision> selected{ConvolutionPrecision::fast};
thread_local const ConvolutionPrecision* fixed = nullptr;

}  // namespace

ConvolutionPrecision convolution_precision() noexcept { return fixed ? *fixed : selected.load(); }

void set_convolution_precision(ConvolutionPrecision precision) noexcept { selected = precision; }

ScopedConvolutionPrecision::ScopedConvolutionPrecision(ConvolutionPrecision precision) noexcept
    : before_(std::exchange(fixed, &precision_)), precision_(precision) {}

ScopedConvolutionPrecision::ScopedConvolutionPrecision() noexcept
    : before_(std::exchange(fixed, nullptr)) {}

ScopedConvolutionPrecision::~ScopedConvolutionPrecision() { fixed = before_; }

}  // namespace chainrule
