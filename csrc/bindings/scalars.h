// Checks of scalar arguments. Errors name the operation and the argument.
#pragma once

#include <utility>

#include "bindings/call.h"

namespace chainrule::bindings {

// An integer in [minimum, maximum]. TypeError if the object is not an integer.
int64_t integer(const Call& call, const char* name, const py::handle& object, int64_t minimum,
                int64_t maximum);
uint64_t unsigned_integer(const Call& call, const char* name, const py::handle& object);
// A string.
std::string text(const Call& call, const char* name, const py::handle& object);
// True or False, of Python or NumPy.
bool boolean(const Call& call, const char* name, const py::handle& object);
// A finite number.
double number(const Call& call, const char* name, const py::handle& object);
// A number that a program reads again at every replay: a fixed value, or the element of an array
// without dimensions. If the array is on a GPU, the kernel reads it, and get() is 0.
template <class V>
class ReplayScalar {
 public:
  explicit ReplayScalar(V value) : value_(value) {}
  explicit ReplayScalar(const ArrayView& array) : value_() {
    (&array.device() == &cpu() ? cpu_address_ : gpu_address_) = data<V>(array);
  }
  V get() const { return cpu_address_ ? *cpu_address_ : value_; }
  const V* gpu_address() const { return gpu_address_; }

 private:
  V value_;
  const V* cpu_address_ = nullptr;
  const V* gpu_address_ = nullptr;
};

ReplayScalar<double> replay_number(Call& call, const char* name, const py::object& object);
ReplayScalar<uint64_t> replay_unsigned(Call& call, const char* name, const py::object& object);

// An integer, or a pair of them: (rows, columns).
std::pair<int64_t, int64_t> pair(const Call& call, const char* name, const py::handle& object,
                                 int64_t minimum, int64_t maximum);
// Returns true for "relu", false for None. Any other value is a ValueError.
bool is_relu(const Call& call, const py::object& activation);
// The four sizes in a tuple or list.
Shape image_shape(const Call& call, const char* name, const py::object& object);

// Upper bound of each axis of an image or window, and of stride and padding. Sums of a few of them
// cannot overflow, so only products need checks.
constexpr int64_t max_axis = int64_t{1} << 40;

// Returns the number of windows along an axis of `length` pixels, padding included.
int64_t output_size(int64_t length, int64_t window, int64_t stride);

}  // namespace chainrule::bindings
