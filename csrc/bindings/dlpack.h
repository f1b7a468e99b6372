// Memory layout of DLPack 1.0, the protocol by which libraries exchange arrays.
#pragma once

#include <cstdint>

namespace chainrule::bindings::dlpack {

enum DeviceType : int32_t { cpu = 1, cuda = 2 };

struct Device {
  int32_t type;
  int32_t index;
};

enum TypeCode : uint8_t { signed_integer = 0, unsigned_integer = 1, floating_point = 2 };

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null if contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor* self);
};

constexpr uint64_t read_only = 1;

struct VersionedTensor {
  uint32_t major, minor;
  void* context;
  void (*deleter)(VersionedTensor* self);
  uint64_t flags;
  Tensor tensor;
};

// Names of the capsules, before and after a consumer has taken ownership.
constexpr const char* managed_name = "dltensor";
constexpr const char* managed_used_name = "used_dltensor";
constexpr const char* versioned_name = "dltensor_versioned";
constexpr const char* versioned_used_name = "used_dltensor_versioned";

}  // namespace chainrule::bindings::dlpack
