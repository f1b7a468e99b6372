#include "bindings/call.h"

#include "bindings/cuda_array.h"

namespace chainrule::bindings {
namespace {

constexpr int dense_flags =
    py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

std::string dimensions(int rank) {
  return std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions");
}

bool is_real(Type type) { return type == Type::f32 || type == Type::f64; }

bool is_dense(const py::array& array) { return (array.flags() & dense_flags) == dense_flags; }

// Dense, through a copy if it is not.
py::array dense_copy(const py::array& array) {
  if (is_dense(array)) return array;
  // NumPy copies a contiguous but misaligned array only when it is told to.
  return py::module_::import("numpy").attr("array")(array, py::arg("order") = "C",
                                                    py::arg("copy") = true);
}

Held held_by(const py::array& array) {
  return {array, array.data(), Shape(array.shape(), array.shape() + array.ndim()),
          type_of(array.dtype()), &cpu()};
}

// What an array of either device is; no device where the object is neither.
Held held_by(const py::object& object) {
  if (py::isinstance<py::array>(object)) {
    return held_by(py::reinterpret_borrow<py::array>(object));
  }
  if (py::isinstance<CudaArray>(object)) return object.cast<const CudaArray&>().held(object);
  return {};
}

py::array numpy(const Held& held) { return py::reinterpret_borrow<py::array>(held.object); }

bool same_memory(const Held& a, const Held& b) {
  return a.data == b.data && a.nbytes() == b.nbytes();
}

bool overlap(const Held& a, const Held& b) {
  const char* const first = static_cast<const char*>(a.data);
  const char* const second = static_cast<const char*>(b.data);
  const int64_t size = a.nbytes(), other = b.nbytes();
  return size > 0 && other > 0 && first < second + other && second < first + size;
}

}  // namespace

std::string type_of(const py::handle& object) {
  if (py::isinstance<py::array>(object)) {
    return py::str(py::reinterpret_borrow<py::array>(object).dtype()).cast<std::string>();
  }
  if (py::isinstance<CudaArray>(object)) return name_of(object.cast<const CudaArray&>().type());
  return py::str(py::type::of(object).attr("__name__")).cast<std::string>();
}

void require_in_range(const char* what, const Operand& indices, int64_t count, int64_t end) {
  const Looked<int64_t> index(indices, count);
  if (!index) return;
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] < 0 || index[i] >= end) {
      throw py::value_error(std::string(what) + " must lie in [0, " + std::to_string(end) +
                            "), got " + std::to_string(index[i]) + " at index " +
                            std::to_string(i));
    }
  }
}

int64_t product(const std::string& op, const Shape& factors, const Shape& shape) {
  int64_t total = 1;
  for (const int64_t n : factors) {
    if (__builtin_mul_overflow(total, n, &total)) {
      throw py::value_error(op + ": an array of shape " + to_string(shape) +
                            " has more elements than memory can address");
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

Operand Call::hold(Held held, bool result) {
  if (count_ == most) throw std::logic_error("Call: too many operands");
  held_[count_] = std::move(held);
  result_[count_] = result;
  return Operand(held_[count_++]);
}

py::object Call::adopt(const py::object& object) const { return adopted(op_, object); }

Held Call::accept(const char* name, const py::object& object, int rank, bool bytes) {
  const py::object array = adopt(object);
  const Held held = held_by(array);
  if (!is_real(held.type) && !(bytes && held.type == Type::u8)) {
    type_error(std::string(name) + " must be a float32" +
               (bytes ? ", float64 or uint8" : " or float64") + " array, got " + type_of(array));
  }
  const int dimensions_given = static_cast<int>(held.shape.size());
  if (rank >= 0 && dimensions_given != rank) {
    value_error(std::string(name) + " must have " + dimensions(rank) + ", got " +
                std::to_string(dimensions_given));
  }
  note_device(name, held);
  if (is_real(held.type)) note_type(name, held.type);
  return held;
}

void Call::note_device(const char* name, const Held& held) {
  if (!device_) {
    device_ = held.device;
    first_on_device_ = name;
  } else if (device_ != held.device) {
    type_error(std::string(first_on_device_) + " lies on " + device_->place() + ", " + name +
               " on " + held.device->place() + ": they must lie on one device");
  }
}

void Call::note_type(const char* name, Type type) {
  if (type_ == Type::other) {
    type_ = type;
    first_of_type_ = name;
  } else if (type_ != type) {
    type_error(std::string(first_of_type_) + " is " + name_of(type_) + ", " + name + " is " +
               name_of(type) + ": they must have one dtype");
  }
}

Held Call::dense(const char* name, Held given) {
  if (given.device != &cpu()) return given;  // dense, or it would not have been adopted
  const py::array array = dense_copy(numpy(given));
  if (array.is(given.object)) return given;
  if (!copied_) copied_ = name;
  return held_by(array);
}

void Call::require_recordable(const Program& program) const {
  if (program.device() && program.device() != &device()) {
    type_error(std::string("a program whose arrays lie on ") + program.device()->place() +
               " cannot record arrays that lie on " + device().place());
  }
  if (copied_) {
    value_error(std::string(copied_) +
                " must be C-contiguous, aligned and of the kernel's dtype to be recorded");
  }
}

Operand Call::input(const char* name, const py::object& object, int rank) {
  return hold(dense(name, accept(name, object, rank)), false);
}

Operand Call::integers(const char* name, const py::object& object, int64_t end) {
  const py::object candidate = adopt(object);
  if (const Held held = held_by(candidate); held.device && held.device != &cpu()) {
    return integers_on_device(name, held);
  }
  const bool is_array = py::isinstance<py::array>(candidate);
  const char kind = is_array ? py::reinterpret_borrow<py::array>(candidate).dtype().kind() : ' ';
  if (kind != 'i' && kind != 'u') {
    type_error(std::string(name) + " must be an integer array, got " + type_of(candidate));
  }
  const py::array array = py::reinterpret_borrow<py::array>(candidate);
  if (array.ndim() != 1) {
    value_error(std::string(name) + " must have " + dimensions(1) + ", got " +
                std::to_string(array.ndim()));
  }
  if (kind == 'u' && array.itemsize() == 8) {  // the conversion below would wrap
    const auto wide = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>(array);
    for (int64_t i = 0; i < wide.shape(0); ++i) {
      if (wide.at(i) >= static_cast<uint64_t>(end)) {
        value_error(std::string(name) + " must lie in [0, " + std::to_string(end) + "), got " +
                    std::to_string(wide.at(i)) + " at index " + std::to_string(i));
      }
    }
  }
  using Indices = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
  const py::array used = dense_copy(Indices(array));
  if (!used.is(array) && !copied_) copied_ = name;
  const Held held = held_by(used);
  note_device(name, held);
  return hold(held, false);
}

Operand Call::integers_on_device(const char* name, const Held& held) {
  if (is_real(held.type)) {
    type_error(std::string(name) + " must be an integer array, got " + name_of(held.type));
  }
  if (held.type != Type::i64) {
    type_error(std::string(name) + " must be int64 on " + held.device->place() + ", got " +
               name_of(held.type));
  }
  if (held.shape.size() != 1) {
    value_error(std::string(name) + " must have " + dimensions(1) + ", got " +
                std::to_string(held.shape.size()));
  }
  note_device(name, held);
  return hold(held, false);
}

Operand Call::source(const py::object& object) {
  return hold(dense("source", accept("source", object, -1, true)), false);
}

void Call::type_from(const py::object& out) {
  if (out.is_none()) {
    type_ = Type::f32;
  } else {
    accept("out", out, -1);
  }
}

Operand Call::bias(const py::object& object, int64_t count, const char* outputs) {
  if (object.is_none()) return {};
  const Operand bias = input("bias", object, 1);
  if (dim(bias, 0) != count) {
    value_error("bias has " + std::to_string(dim(bias, 0)) + " elements, weight has " +
                std::to_string(count) + " " + outputs);
  }
  return bias;
}

Operand Call::positions(const char* name, const py::object& object) {
  const Held held = held_by(object);
  if (held.type != Type::u16) {
    type_error(std::string(name) + " must be the uint16 array that max_pool2d returned, got " +
               type_of(object));
  }
  note_device(name, held);
  return hold(dense(name, held), false);
}

bool Call::cell(const char* name, const py::object& object, Type type, Operand& found) {
  const Held held = held_by(object);
  if (!held.device || !held.shape.empty()) return false;
  // A number in the CPU's memory may come with arrays elsewhere, but no program would read it anew.
  if (held.device != &cpu() || Program::recording()) note_device(name, held);
  if (held.type == type && held.device == &device()) {
    found = hold(held, false);
    return true;
  }
  // It would be read once, and a program would never see it change.
  if (Program::recording()) {
    type_error(std::string(name) + " must be a number or a " + name_of(type) +
               " array of no dimensions to be recorded, got " + type_of(object));
  }
  return false;
}

void Call::require_writeable(const char* name, const Held& held) const {
  if (held.device != &cpu()) {
    if (held.object.cast<const CudaArray&>().read_only()) {
      value_error(std::string(name) + " is read-only");
    }
    return;
  }
  const py::array array = numpy(held);
  if (!array.writeable()) value_error(std::string(name) + " is read-only");
  if (is_dense(array)) return;
  const bool contiguous = array.flags() & py::array::c_style;
  value_error(std::string(name) +
              (contiguous ? " must be aligned in memory" : " must be C-contiguous"));
}

Operand Call::accept_output(const char* name_, const py::object& given, const Shape& shape,
                            Type type, const std::vector<Operand>& in_place) {
  Shape bytes = shape;
  bytes.push_back(size_of(type));
  product(op_, bytes, shape);
  if (given.is_none()) return hold(device().allocate(type, shape), true);
  const std::string name = name_;
  const Held held = held_by(given);
  if (!held.device) {
    type_error(name + " must be a " + name_of(type) + " array, got " + type_of(given));
  }
  note_device(name_, held);
  if (held.type != type) {
    type_error(name + " must be " + name_of(type) + ", got " + type_of(given));
  }
  if (held.shape != shape) {
    value_error(name + " must have shape " + to_string(shape) + ", got " + to_string(held.shape));
  }
  require_writeable(name_, held);
  for (std::size_t i = 0; i < count_; ++i) {
    if (!overlap(held_[i], held)) continue;
    if (result_[i]) value_error(name + " overlaps another output");
    bool allowed = false;
    for (const Operand& candidate : in_place) {
      allowed = allowed || (candidate.is(held_[i]) && same_memory(held_[i], held));
    }
    if (!allowed) value_error(name + " overlaps an input");
  }
  return hold(held, true);
}

Operand Call::output(const py::object& given, const Shape& shape,
                     const std::vector<Operand>& in_place) {
  return accept_output("out", given, shape, type_ == Type::f64 ? Type::f64 : Type::f32, in_place);
}

Operand Call::output_positions(const py::object& given, const Shape& shape) {
  return accept_output("out", given, shape, Type::u16, {});
}

Operand Call::updated(const char* name, const py::object& object) {
  const Held held = accept(name, object, -1);
  require_writeable(name, held);
  for (std::size_t i = 0; i < count_; ++i) {
    if (overlap(held_[i], held)) value_error(std::string(name) + " overlaps another argument");
  }
  return hold(held, false);
}

Operand Call::fixed(const char* name, const py::object& object, Type type, int64_t least_size) {
  const Held held = held_by(object);
  if (held.device != &gpu() || held.type != type || held.size() < least_size) {
    type_error(std::string(name) + " must be a cuda.Array of " + name_of(type) + ", of at least " +
               std::to_string(least_size) + " elements, got " + type_of(object));
  }
  note_device(name, held);
  require_writeable(name, held);
  return hold(held, true);
}

std::vector<py::object> Call::outputs(const py::object& out, std::size_t count,
                                      bool first_unused) const {
  if (out.is_none()) return std::vector<py::object>(count, py::none());
  if (!py::isinstance<py::tuple>(out) || py::len(out) != count) {
    const std::string came = py::isinstance<py::tuple>(out)
                                 ? "a tuple of " + std::to_string(py::len(out))
                                 : type_of(out);
    type_error("out must be a tuple of " + std::to_string(count) + " arrays, got " + came);
  }
  std::vector<py::object> members;
  for (const py::handle& member : py::reinterpret_borrow<py::tuple>(out)) {
    if (member.is_none() && !(first_unused && members.empty())) {
      type_error("out must be a tuple of " + std::to_string(count) +
                 " arrays, got None among them");
    }
    members.push_back(py::reinterpret_borrow<py::object>(member));
  }
  return members;
}

}  // namespace chainrule::bindings
