// Numbers that come with an operation, read from Python objects and refused by name.
#pragma once

#include <utility>

#include "bindings/call.h"

namespace chainrule::bindings {

// An integer in [least, most]; anything that is no integer is a TypeError.
int64_t integer(const Call& call, const char* name, const py::handle& object, int64_t least,
                int64_t most);
uint64_t unsigned_integer(const Call& call, const char* name, const py::handle& object);
// A finite number.
double number(const Call& call, const char* name, const py::handle& object);
// A number that a program reads anew at every replay: the value given, or what an array of no
// dimensions holds at that moment. An array on a GPU is read by the kernel: get() is then 0.
template <class V>
class Cell {
 public:
  explicit Cell(V value) : value_(value) {}
  explicit Cell(const Operand& array) : value_() {
    (&array.device() == &cpu() ? memory_ : address_) = data<V>(array);
  }
  V get() const { return memory_ ? *memory_ : value_; }
  const V* address() const { return address_; }

 private:
  V value_;
  const V* memory_ = nullptr;
  const V* address_ = nullptr;
};

Cell<double> number_cell(Call& call, const char* name, const py::object& object);
Cell<uint64_t> unsigned_cell(Call& call, const char* name, const py::object& object);

// An integer, or a pair of them: (rows, columns).
std::pair<int64_t, int64_t> pair(const Call& call, const char* name, const py::handle& object,
                                 int64_t least, int64_t most);
// Returns true for "relu", false for None. Any other value is a ValueError.
bool is_relu(const Call& call, const py::object& activation);
// The sizes in a tuple or list of four.
Shape image_shape(const Call& call, const char* name, const py::object& object);

// No axis of an image, a window, a stride or a padding may be longer: every sum of a few of them
// then fits, and only products need checking.
constexpr int64_t longest_axis = int64_t{1} << 40;

// The number of windows along an axis of `length` pixels, padding included.
int64_t window_positions(int64_t length, int64_t window, int64_t stride);

}  // namespace chainrule::bindings
