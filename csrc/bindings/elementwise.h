// Bindings shared by elementwise operations, y[i] = f(a[i], b[i]).
#pragma once

#include "bindings/call.h"

namespace chainrule::bindings {

inline void require_same_shape(const Call& call, const char* a_name, const ArrayView& a,
                               const char* b_name, const ArrayView& b) {
  if (shape_of(a) != shape_of(b)) {
    call.value_error(std::string(a_name) + " and " + b_name + " must have the same shape, got " +
                     to_string(shape_of(a)) + " and " + to_string(shape_of(b)));
  }
}

// Runs kernel(ops, x, y, count).
template <class F>
py::object elementwise(Call& call, const py::object& x_, const py::object& out, F kernel) {
  const ArrayView x = call.input("x", x_);
  const ArrayView y = call.output(out, shape_of(x), {x});
  const int64_t count = x.size();
  call.run(
      [=]<class T>(const Ops<T>& ops, T) { kernel(ops, data<T>(x), mutable_data<T>(y), count); });
  return y.object();
}

// Runs kernel(ops, dy, saved, dx, count). `saved` is the array saved by the forward pass.
template <class F>
py::object elementwise_backward(Call& call, const py::object& dy_, const char* saved_name,
                                const py::object& saved_, const py::object& out, F kernel) {
  const ArrayView dy = call.input("dy", dy_);
  const ArrayView saved = call.input(saved_name, saved_);
  require_same_shape(call, "dy", dy, saved_name, saved);
  const ArrayView dx = call.output(out, shape_of(dy), {dy, saved});
  const int64_t count = dy.size();
  call.run([=]<class T>(const Ops<T>& ops, T) {
    kernel(ops, data<T>(dy), data<T>(saved), mutable_data<T>(dx), count);
  });
  return dx.object();
}

// Names of an activation's two functions, and of the array that its backward pass reads.
struct ActivationNames {
  const char *forward, *backward, *saved;
};

// Binds an activation without options. `forward` and `backward` run the kernels of one dtype.
template <class Forward, class Backward>
void bind_activation(py::module_& m, const ActivationNames& names, Forward forward,
                     Backward backward) {
  m.def(
      names.forward,
      [=](const py::object& x, const py::object& out) {
        Call call(names.forward);
        return elementwise(call, x, out, forward);
      },
      py::arg("x"), py::arg("out"));
  m.def(
      names.backward,
      [=](const py::object& dy, const py::object& saved, const py::object& out) {
        Call call(names.backward);
        return elementwise_backward(call, dy, names.saved, saved, out, backward);
      },
      py::arg("dy"), py::arg(names.saved), py::arg("out"));
}

}  // namespace chainrule::bindings
