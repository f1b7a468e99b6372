#include "bindings/loss.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_softmax_cross_entropy(py::module_& m) {
  m.def(
      "softmax_cross_entropy",
      [](const py::object& logits_, const py::object& labels_, const py::object& weight,
         const py::object& instances, const py::object& out) -> Pair {
        Call call("softmax_cross_entropy");
        const ArrayView logits = call.input("logits", logits_, 2);
        const Rows s{dim(logits, 0), dim(logits, 1)};
        const ArrayView labels = call.integers("labels", labels_, s.columns);
        if (dim(labels, 0) != s.rows) {
          call.value_error("logits and labels must have the same number of rows, got " +
                           std::to_string(s.rows) + " and " + std::to_string(dim(labels, 0)));
        }
        const Weighting w = weighting(call, weight, instances, s.rows);
        const auto given = call.unpack_out(out, 2);
        const ArrayView losses = call.output(given[0], {s.rows});
        const ArrayView dlogits = call.output(given[1], {s.rows, s.columns}, {logits});
        call.run([=]<class T>(const Ops<T>& ops, T) {
          require_in_range("softmax_cross_entropy: labels", labels, s.rows, s.columns);
          ops.softmax_cross_entropy(data<T>(logits), data<int64_t>(labels), data<T>(w.weight),
                                    mutable_data<T>(losses), mutable_data<T>(dlogits), w.instances,
                                    s);
        });
        return py::make_tuple(losses.object(), dlogits.object());
      },
      py::arg("logits"), py::arg("labels"), py::arg("weight"), py::arg("instances"),
      py::arg("out"));
}

}  // namespace chainrule::bindings
