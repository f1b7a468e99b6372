// Checks of array arguments. Every operation passes its arrays through a Call, so kernels receive
// contiguous, typed, non-overlapping arrays and check nothing again.
#pragma once

#include <pybind11/typing.h>

#include <array>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_view.h"
#include "bindings/device.h"
#include "bindings/program.h"
#include "core/ops.h"
#include "cpu/threads.h"

namespace chainrule::bindings {

using Pair = py::typing::Tuple<py::object, py::object>;

// The dtype's name for an array, else the name of the Python type. For error messages.
std::string type_name(const py::handle& object);
// Returns the product of `factors`. ValueError if it overflows int64_t. The message names `what`
// and its shape, which may lack factors such as the element size.
int64_t checked_product(const std::string& op, const Shape& factors, const Shape& shape,
                        const char* what = "arrays and workspaces");
// Factor of such products: upper bound of the bytes that workspaces hold per element of an operand,
// over the maximum number of threads, with room for rounding up.
constexpr int64_t max_copies = int64_t{1} << 18;

// One call of an operation. It stores the arrays added so far, to check that dtypes and devices
// agree and that outputs do not overlap other arrays.
class Call {
 public:
  // If `device` is null, the device of the first array is used.
  explicit Call(const char* op, const Device* device = nullptr) : op_(op), device_(device) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // A float32 or float64 array with `rank` dimensions (any number if negative) and the dtype of the
  // arrays before it. If it is not contiguous or not aligned, a copy is used. Objects with
  // __dlpack__ are accepted.
  ArrayView input(const char* name, const py::object& object, int rank = -1);
  // Integers of any width, converted to a contiguous int64 array of one dimension. uint64 values
  // beyond int64 raise the error of a value outside [0, end).
  ArrayView integers(const char* name, const py::object& object, int64_t end);
  // The source of `gather`: like `input`, or uint8, which does not determine the call's dtype.
  ArrayView gather_source(const py::object& object);
  // Takes the call's dtype from `out`. float32 if `out` is None.
  void dtype_from(const py::object& out);
  // An optional bias of `count` elements. `units` names the outputs of the weight.
  ArrayView bias(const py::object& object, int64_t count, const char* units);
  // The argmax array that `max_pool2d` or `conv2d_pooled` returned.
  ArrayView argmax(const char* name, const py::object& object);
  // If `object` is an array without dimensions that holds one `type`, stores it in `found` and
  // returns true.
  bool replay_array(const char* name, const py::object& object, DType type, ArrayView& found);

  // A new array if `given` is None. Else `given`, which must have the call's dtype and `shape`, be
  // contiguous and writeable, and share no memory with an input or another output. Elementwise
  // operations list in `in_place` the inputs whose exact memory `given` may be.
  ArrayView output(const py::object& given, const Shape& shape,
                   const std::vector<ArrayView>& in_place = {});
  ArrayView output_argmax(const py::object& given, const Shape& shape);
  // An array that the operation reads and updates.
  ArrayView updated(const char* name, const py::object& object);

  // A writeable cuda.Array of this type with at least `min_size` elements.
  ArrayView gpu_buffer(const char* name, const py::object& object, DType type, int64_t min_size);

  // The members of the tuple `out`, or `count` times None if `out` is None.
  std::vector<py::object> unpack_out(const py::object& out, std::size_t count,
                                     bool first_may_be_none = false) const;

  const char* op() const { return op_; }
  const Device& device() const { return device_ ? *device_ : cpu(); }
  [[noreturn]] void value_error(const std::string& what) const;
  [[noreturn]] void type_error(const std::string& what) const;

  // Runs f(ops, T(), workspace) without the GIL. `ops` is the kernel table of the call's device for
  // its dtype T, and `workspace` has size(ops, workers) bytes. While a program records, it stores
  // f, so f may use only data() and device() of an ArrayView.
  template <class Size, class F>
  void run_with_workspace(Size size, F f) const {
    const Backend& backend = device().backend();
    if (type_ == DType::f64) {
      launch(backend.f64, size, f);
    } else {
      launch(backend.f32, size, f);
    }
  }

  // Runs f(ops, T()), for operations without workspace.
  template <class F>
  void run(F f) const {
    run_with_workspace([](const auto&, int) { return int64_t{0}; },
                       [f](const auto& ops, auto zero, const Workspace&) { f(ops, zero); });
  }

 private:
  template <class T, class Size, class F>
  void launch(const Ops<T>& ops, Size size, F f) const {
    const int workers = num_threads();
    const int64_t bytes = size(ops, workers);
    const auto step = [&ops, f](const Workspace& workspace) { f(ops, T(), workspace); };
    const std::shared_ptr<Program> program = Program::recording();
    if (!program) return device().run(op_, bytes, workers, StepRef(step), arrays());
    require_recordable(*program);
    Step stored = device().recordable(step);
    device().run(op_, bytes, workers, StepRef(stored), arrays());
    // A signal handler may have ended the recording.
    if (Program::recording() != program) {
      throw std::runtime_error(std::string(op_) +
                               ": the recording must not end during the call, got its end");
    }
    program->add(device(), std::move(stored), bytes, workers, arrays());  // only if it succeeded
  }

  // A program replays on the arrays of the recording, so temporary copies are an error.
  void require_recordable(const Program& program) const;
  std::span<const ArrayRef> arrays() const { return {arrays_.data(), count_}; }

  // import_array with this operation's name in its errors.
  py::object adopt(const char* name, const py::object& object) const;
  // Describes an array of either device. The device is null if the object is not an array.
  ArrayRef described(const char* name, const py::object& object) const;
  ArrayRef checked_input(const char* name, const py::object& object, int rank, bool bytes = false);
  ArrayRef contiguous(const char* name, ArrayRef given);
  ArrayView checked_output(const char* name, const py::object& given, const Shape& shape,
                           DType type, const std::vector<ArrayView>& in_place);
  void require_writeable(const char* name, const ArrayRef& ref) const;
  void check_dtype(const char* name, DType type);
  void check_device(const char* name, const ArrayRef& ref);
  ArrayView integers_on_device(const char* name, const ArrayRef& ref);
  ArrayView add(ArrayRef ref, bool is_output);

  // More than any operation has. A fixed array, because ArrayViews point to its elements.
  static constexpr std::size_t max_arrays = 11;

  const char* op_;
  const Device* device_;
  const char* device_argument_ = "the call";
  DType type_ = DType::other;
  const char* dtype_argument_ = nullptr;
  const char* copied_argument_ = nullptr;
  std::array<ArrayRef, max_arrays> arrays_;
  std::array<bool, max_arrays> is_output_{};
  std::size_t count_ = 0;
};

// The first `count` elements of an array, in host memory. Converts to false if the host cannot wait
// for the device.
template <class T>
class HostCopy {
 public:
  HostCopy(const ArrayView& array, int64_t count) {
    if (&array.device() == &cpu()) {
      data_ = bindings::data<T>(array);
      return;
    }
    copy_.resize(static_cast<std::size_t>(count));
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (array.device().copy_to_host(array.data(), bytes, copy_.data())) data_ = copy_.data();
  }
  explicit operator bool() const { return data_ || copy_.empty(); }
  const T* data() const { return data_; }
  T operator[](int64_t i) const { return data_[i]; }

 private:
  std::vector<T> copy_ = {};
  const T* data_ = nullptr;
};

// ValueError, beginning with `what`, unless every element of an `integers` array is in [0, end).
// It is part of the operation, so a program checks again at every replay. `count` is the size at
// the time of the call, because an array's shape can be changed later.
void require_in_range(const char* what, const ArrayView& indices, int64_t count, int64_t end);

}  // namespace chainrule::bindings
