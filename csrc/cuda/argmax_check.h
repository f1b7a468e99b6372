// Range check of the argmax of pooling windows, as given to backward passes.
#pragma once

#include "core/shape.h"
#include "cuda/runtime/device_errors.h"

namespace chainrule::cuda {

// Reports `error` if an argmax is not a position of its window. The host cannot check values that a
// Program reads from device memory. The backward passes ignore such elements. Defined in
// max_pool2d.cu.
void check_argmax(const uint16_t* argmax, const MaxPool2d& p, DeviceError error);

}  // namespace chainrule::cuda
