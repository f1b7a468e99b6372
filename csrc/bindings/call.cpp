#include "bindings/call.h"

#include <algorithm>

#include "bindings/cuda_array.h"

namespace chainrule::bindings {
namespace {

constexpr int contiguous_flags =
    py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

std::string dimensions(int rank) {
  return std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions");
}

bool is_real(DType type) { return type == DType::f32 || type == DType::f64; }

bool is_contiguous(const py::array& array) {
  return (array.flags() & contiguous_flags) == contiguous_flags;
}

// Throws the exception of a pending signal handler, such as that of Ctrl-C.
void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// A C-contiguous, aligned copy. Large arrays are copied in parts, between which Ctrl-C is answered.
py::array copy_in_parts(const py::array& array, const py::dtype& dtype) {
  constexpr int64_t part_elements = int64_t{1} << 22;
  const py::module_ numpy = py::module_::import("numpy");
  if (array.size() <= part_elements) {
    // np.ascontiguousarray does not copy an array that is contiguous but misaligned.
    return numpy.attr("array")(array, dtype, py::arg("order") = "C", py::arg("copy") = true);
  }
  const Shape shape(array.shape(), array.shape() + array.ndim());
  py::array copy(dtype, shape);
  // In parts along the longest axis.
  const auto longest = std::max_element(shape.begin(), shape.end());
  const int64_t parts = std::min<int64_t>(array.size() / part_elements + 1, *longest);
  const py::object copyto = numpy.attr("copyto");
  for (int64_t part = 0; part < parts; ++part) {
    py::tuple index(shape.size());
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const bool split = shape.begin() + static_cast<std::ptrdiff_t>(axis) == longest;
      const int64_t begin = split ? shape[axis] / parts * part : 0;
      const int64_t end =
          split && part + 1 < parts ? shape[axis] / parts * (part + 1) : shape[axis];
      index[axis] = py::slice(begin, end, 1);
    }
    copyto(py::object(copy[index]), py::object(array[index]), py::arg("casting") = "unsafe");
    check_signals();
  }
  return copy;
}

// The array itself if it is contiguous and aligned, else a copy.
py::array contiguous_copy(const py::array& array) {
  return is_contiguous(array) ? array : copy_in_parts(array, array.dtype());
}

ArrayRef array_ref(const py::array& array) {
  return {array, array.data(), Shape(array.shape(), array.shape() + array.ndim()),
          dtype_of(array.dtype()), &cpu()};
}

// Describes an array of either device. The device is null if the object is not an array.
ArrayRef array_ref(const py::object& object) {
  if (py::isinstance<py::array>(object)) {
    return array_ref(py::reinterpret_borrow<py::array>(object));
  }
  if (py::isinstance<CudaArray>(object)) return object.cast<const CudaArray&>().ref(object);
  return {};
}

py::array numpy(const ArrayRef& ref) { return py::reinterpret_borrow<py::array>(ref.object); }

bool same_memory(const ArrayRef& a, const ArrayRef& b) {
  return a.data == b.data && a.nbytes() == b.nbytes();
}

bool overlap(const ArrayRef& a, const ArrayRef& b) {
  const char* const first = static_cast<const char*>(a.data);
  const char* const second = static_cast<const char*>(b.data);
  const int64_t size = a.nbytes(), other = b.nbytes();
  return size > 0 && other > 0 && first < second + other && second < first + size;
}

}  // namespace

std::string type_name(const py::handle& object) {
  if (py::isinstance<py::array>(object)) {
    return py::str(py::reinterpret_borrow<py::array>(object).dtype()).cast<std::string>();
  }
  if (py::isinstance<CudaArray>(object)) return name_of(object.cast<const CudaArray&>().type());
  if (PyType_Check(object.ptr())) {
    return "the class " + py::str(object.attr("__name__")).cast<std::string>();
  }
  return py::str(py::type::of(object).attr("__name__")).cast<std::string>();
}

void require_in_range(const char* what, const ArrayView& indices, int64_t count, int64_t end) {
  const HostCopy<int64_t> index(indices, count);
  if (!index) return;
  constexpr int64_t part = int64_t{1} << 16;
  for (int64_t begin = 0; begin < count && keep_going(part); begin += part) {
    for (int64_t i = begin; i < std::min(count, begin + part); ++i) {
      const int64_t value = index[i];
      if (value < 0 || value >= end) {
        throw py::value_error(std::string(what) + " must be in [0, " + std::to_string(end) +
                              "), got " + std::to_string(value) + " at index " + std::to_string(i));
      }
    }
  }
}

int64_t checked_product(const std::string& op, const Shape& factors, const Shape& shape,
                        const char* what) {
  int64_t total = 1;
  for (const int64_t n : factors) {
    if (__builtin_mul_overflow(total, n, &total)) {
      throw py::value_error(op + ": " + what + " must be smaller than 2**63 bytes, got shape " +
                            to_string(shape));
    }
  }
  return total;
}

void Call::value_error(const std::string& what) const {
  throw py::value_error(std::string(op_) + ": " + what);
}
void Call::type_error(const std::string& what) const {
  throw py::type_error(std::string(op_) + ": " + what);
}

ArrayView Call::add(ArrayRef ref, bool is_output) {
  if (count_ == max_arrays) throw std::logic_error("Call: too many arrays");
  arrays_[count_] = std::move(ref);
  is_output_[count_] = is_output;
  return ArrayView(arrays_[count_++]);
}

py::object Call::adopt(const char* name, const py::object& object) const {
  return import_array(op_, name, object);
}

ArrayRef Call::described(const char* name, const py::object& object) const {
  require_unmasked(op_, name, object);
  return array_ref(object);
}

ArrayRef Call::checked_input(const char* name, const py::object& object, int rank, bool bytes) {
  const py::object array = adopt(name, object);
  const ArrayRef ref = array_ref(array);
  if (!is_real(ref.type) && !(bytes && ref.type == DType::u8)) {
    type_error(std::string(name) + " must be a float32" +
               (bytes ? ", float64 or uint8" : " or float64") + " array, got " + type_name(array));
  }
  const int dimensions_given = static_cast<int>(ref.shape.size());
  if (rank >= 0 && dimensions_given != rank) {
    value_error(std::string(name) + " must have " + dimensions(rank) + ", got " +
                std::to_string(dimensions_given));
  }
  check_device(name, ref);
  if (is_real(ref.type)) check_dtype(name, ref.type);
  return ref;
}

void Call::check_device(const char* name, const ArrayRef& ref) {
  if (!device_) {
    device_ = ref.device;
    device_argument_ = name;
  } else if (device_ != ref.device) {
    type_error(std::string(device_argument_) + " and " + name +
               " must be on the same device, got " + device_->name() + " and " +
               ref.device->name());
  }
}

void Call::check_dtype(const char* name, DType type) {
  if (type_ == DType::other) {
    type_ = type;
    dtype_argument_ = name;
  } else if (type_ != type) {
    type_error(std::string(dtype_argument_) + " and " + name + " must have the same dtype, got " +
               name_of(type_) + " and " + name_of(type));
  }
}

ArrayRef Call::contiguous(const char* name, ArrayRef given) {
  if (given.device != &cpu()) return given;  // contiguous: import_array has checked it
  const py::array array = contiguous_copy(numpy(given));
  if (array.is(given.object)) return given;
  if (!copied_argument_) copied_argument_ = name;
  return array_ref(array);
}

void Call::require_recordable(const Program& program) const {
  if (program.device() && program.device() != &device()) {
    type_error(std::string("arrays of a program must be on the same device, got ") +
               program.device()->name() + " and " + device().name());
  }
  if (copied_argument_) {
    value_error(std::string(copied_argument_) +
                " must be C-contiguous, aligned and of the kernel's dtype to be recorded");
  }
}

ArrayView Call::input(const char* name, const py::object& object, int rank) {
  return add(contiguous(name, checked_input(name, object, rank)), false);
}

ArrayView Call::integers(const char* name, const py::object& object, int64_t end) {
  const py::object candidate = adopt(name, object);
  if (const ArrayRef ref = array_ref(candidate); ref.device && ref.device != &cpu()) {
    return integers_on_device(name, ref);
  }
  const bool is_array = py::isinstance<py::array>(candidate);
  const char kind = is_array ? py::reinterpret_borrow<py::array>(candidate).dtype().kind() : ' ';
  if (kind != 'i' && kind != 'u') {
    type_error(std::string(name) + " must be an integer array, got " + type_name(candidate));
  }
  const py::array array = py::reinterpret_borrow<py::array>(candidate);
  if (array.ndim() != 1) {
    value_error(std::string(name) + " must have " + dimensions(1) + ", got " +
                std::to_string(array.ndim()));
  }
  if (kind == 'u' && array.itemsize() == 8) {  // because the conversion below would wrap around
    const auto wide = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>(array);
    for (int64_t i = 0; i < wide.shape(0); ++i) {
      if (i % (1 << 20) == 0) check_signals();
      if (wide.at(i) >= static_cast<uint64_t>(end)) {
        value_error(std::string(name) + " must be in [0, " + std::to_string(end) + "), got " +
                    std::to_string(wide.at(i)) + " at index " + std::to_string(i));
      }
    }
  }
  const bool converts = bindings::dtype_of(array.dtype()) != DType::i64;
  const py::array converted =
      converts ? copy_in_parts(array, py::dtype::of<int64_t>()) : contiguous_copy(array);
  if (!converted.is(array) && !copied_argument_) copied_argument_ = name;
  const ArrayRef ref = array_ref(converted);
  check_device(name, ref);
  return add(ref, false);
}

ArrayView Call::integers_on_device(const char* name, const ArrayRef& ref) {
  if (is_real(ref.type)) {
    type_error(std::string(name) + " must be an integer array, got " + name_of(ref.type));
  }
  if (ref.type != DType::i64) {
    type_error(std::string(name) + " must be int64 on " + ref.device->name() + ", got " +
               name_of(ref.type));
  }
  if (ref.shape.size() != 1) {
    value_error(std::string(name) + " must have " + dimensions(1) + ", got " +
                std::to_string(ref.shape.size()));
  }
  check_device(name, ref);
  return add(ref, false);
}

ArrayView Call::gather_source(const py::object& object) {
  return add(contiguous("source", checked_input("source", object, -1, true)), false);
}

void Call::dtype_from(const py::object& out) {
  if (out.is_none()) {
    type_ = DType::f32;
  } else {
    checked_input("out", out, -1);
  }
}

ArrayView Call::bias(const py::object& object, int64_t count, const char* units) {
  if (object.is_none()) return {};
  const ArrayView bias = input("bias", object, 1);
  if (dim(bias, 0) != count) {
    value_error("bias and weight must have the same number of " + std::string(units) + ", got " +
                std::to_string(dim(bias, 0)) + " and " + std::to_string(count));
  }
  return bias;
}

ArrayView Call::argmax(const char* name, const py::object& object) {
  const ArrayRef ref = described(name, object);
  if (ref.type != DType::u16) {
    type_error(std::string(name) + " must be the uint16 array that max_pool2d returned, got " +
               type_name(object));
  }
  check_device(name, ref);
  return add(contiguous(name, ref), false);
}

bool Call::replay_array(const char* name, const py::object& object, DType type, ArrayView& found) {
  const ArrayRef ref = described(name, object);
  if (!ref.device || !ref.shape.empty()) return false;
  // A number in CPU memory may accompany arrays on a GPU, but a program could not read it again.
  if (ref.device != &cpu() || Program::recording()) check_device(name, ref);
  if (ref.type == type && ref.device == &device()) {
    found = add(ref, false);
    return true;
  }
  // It would be read once, so a program would not see its changes.
  if (Program::recording()) {
    type_error(std::string(name) + " must be a number or a " + name_of(type) +
               " array without dimensions to be recorded, got " + type_name(object));
  }
  return false;
}

void Call::require_writeable(const char* name, const ArrayRef& ref) const {
  if (ref.device != &cpu()) {
    if (ref.object.cast<const CudaArray&>().read_only()) {
      value_error(std::string(name) + " must be writeable");
    }
    return;
  }
  const py::array array = numpy(ref);
  if (!array.writeable()) value_error(std::string(name) + " must be writeable");
  if (is_contiguous(array)) return;
  const bool contiguous = array.flags() & py::array::c_style;
  value_error(std::string(name) +
              (contiguous ? " must be aligned in memory" : " must be C-contiguous"));
}

ArrayView Call::checked_output(const char* name_, const py::object& given, const Shape& shape,
                               DType type, const std::vector<ArrayView>& in_place) {
  Shape bytes = shape;
  bytes.push_back(size_of(type));
  checked_product(op_, bytes, shape);
  if (given.is_none()) return add(device().allocate(type, shape), true);
  const std::string name = name_;
  const ArrayRef ref = described(name_, given);
  if (!ref.device) {
    type_error(name + " must be a " + name_of(type) + " array, got " + type_name(given));
  }
  check_device(name_, ref);
  if (ref.type != type) {
    type_error(name + " must be " + name_of(type) + ", got " + type_name(given));
  }
  if (ref.shape != shape) {
    value_error(name + " must have shape " + to_string(shape) + ", got " + to_string(ref.shape));
  }
  require_writeable(name_, ref);
  for (std::size_t i = 0; i < count_; ++i) {
    if (!overlap(arrays_[i], ref)) continue;
    if (is_output_[i]) value_error(name + " must not overlap another output");
    bool allowed = false;
    for (const ArrayView& candidate : in_place) {
      allowed = allowed || (candidate.is(arrays_[i]) && same_memory(arrays_[i], ref));
    }
    if (!allowed) value_error(name + " must not overlap an input");
  }
  return add(ref, true);
}

ArrayView Call::output(const py::object& given, const Shape& shape,
                       const std::vector<ArrayView>& in_place) {
  return checked_output("out", given, shape, type_ == DType::f64 ? DType::f64 : DType::f32,
                        in_place);
}

ArrayView Call::output_argmax(const py::object& given, const Shape& shape) {
  return checked_output("out", given, shape, DType::u16, {});
}

ArrayView Call::updated(const char* name, const py::object& object) {
  const ArrayRef ref = checked_input(name, object, -1);
  require_writeable(name, ref);
  for (std::size_t i = 0; i < count_; ++i) {
    if (overlap(arrays_[i], ref))
      value_error(std::string(name) + " must not overlap another argument");
  }
  return add(ref, false);
}

ArrayView Call::gpu_buffer(const char* name, const py::object& object, DType type,
                           int64_t min_size) {
  const ArrayRef ref = array_ref(object);
  if (ref.device != &gpu() || ref.type != type || ref.size() < min_size) {
    type_error(std::string(name) + " must be a cuda.Array of " + name_of(type) + " with at least " +
               std::to_string(min_size) + " elements, got " + type_name(object));
  }
  check_device(name, ref);
  require_writeable(name, ref);
  return add(ref, true);
}

std::vector<py::object> Call::unpack_out(const py::object& out, std::size_t count,
                                         bool first_may_be_none) const {
  if (out.is_none()) return std::vector<py::object>(count, py::none());
  if (!py::isinstance<py::tuple>(out) || py::len(out) != count) {
    const std::string got = py::isinstance<py::tuple>(out)
                                ? "a tuple of " + std::to_string(py::len(out))
                                : type_name(out);
    type_error("out must be a tuple of " + std::to_string(count) + " arrays, got " + got);
  }
  std::vector<py::object> members;
  for (const py::handle& member : py::reinterpret_borrow<py::tuple>(out)) {
    if (member.is_none() && !(first_may_be_none && members.empty())) {
      type_error("out must be a tuple of " + std::to_string(count) +
                 " arrays, got None among them");
    }
    members.push_back(py::reinterpret_borrow<py::object>(member));
  }
  return members;
}

}  // namespace chainrule::bindings
