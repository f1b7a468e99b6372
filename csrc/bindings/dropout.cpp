#include <cmath>

#include "bindings/call.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

py::object apply_dropout(const char* op, const char* name, const py::object& x_,
                         const py::object& rate_, const py::object& seed, const py::object& offset_,
                         const py::object& out) {
  Call call(op);
  const ArrayView x = call.input(name, x_);
  const double rate = number(call, "rate", rate_);
  if (rate < 0 || rate >= 1) {
    call.value_error("rate must be in [0, 1), got " + py::repr(rate_).cast<std::string>());
  }
  const Dropout s{
      .size = x.size(),
      .seed = unsigned_integer(call, "seed", seed),
      .offset = 0,
      .threshold =
          static_cast<uint32_t>(std::min(std::nearbyint(std::ldexp(rate, 32)), double{UINT32_MAX})),
      .scale = 1 / (1 - rate),
  };
  const ReplayScalar<uint64_t> offset = replay_unsigned(call, "offset", offset_);
  const ArrayView y = call.output(out, shape_of(x), {x});
  call.run([=]<class T>(const Ops<T>& ops, T) {
    Dropout current = s;
    current.offset = offset.get();
    current.device_offset = offset.gpu_address();
    ops.dropout(data<T>(x), mutable_data<T>(y), current);
  });
  return y.object();
}

}  // namespace

void bind_dropout(py::module_& m) {
  m.def(
      "dropout",
      [](const py::object& x, const py::object& rate, const py::object& seed,
         const py::object& offset, const py::object& out) {
        return apply_dropout("dropout", "x", x, rate, seed, offset, out);
      },
      py::arg("x"), py::arg("rate"), py::arg("seed"), py::arg("offset"), py::arg("out"));
  m.def(
      "dropout_backward",
      [](const py::object& dy, const py::object& rate, const py::object& seed,
         const py::object& offset, const py::object& out) {
        return apply_dropout("dropout_backward", "dy", dy, rate, seed, offset, out);
      },
      py::arg("dy"), py::arg("rate"), py::arg("seed"), py::arg("offset"), py::arg("out"));
}

}  // namespace chainrule::bindings
