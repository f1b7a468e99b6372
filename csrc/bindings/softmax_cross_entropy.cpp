#include "bindings/array.h"
#include "bindings/operations.h"

namespace chainrule::bindings {

void bind_softmax_cross_entropy(py::module_& m) {
  m.def(
      "softmax_cross_entropy",
      [](const py::object& logits_, const py::object& labels_, const py::object& out) -> ArrayPair {
        Call call("softmax_cross_entropy");
        const py::array logits = call.input("logits", logits_, 2);
        const py::array_t<int64_t> labels = call.integers("labels", labels_);
        const Rows s{dim(logits, 0), dim(logits, 1)};
        if (dim(labels, 0) != s.rows) {
          call.value_error("logits has " + std::to_string(s.rows) + " rows, labels has " +
                           std::to_string(dim(labels, 0)) + " elements");
        }
        const int64_t* const label = labels.data();
        for (int64_t i = 0; i < s.rows; ++i) {
          if (label[i] < 0 || label[i] >= s.columns) {
            call.value_error("labels must lie in [0, " + std::to_string(s.columns) + "), got " +
                             std::to_string(label[i]) + " at index " + std::to_string(i));
          }
        }
        const auto given = call.outputs(out, 2);
        py::array losses = call.output(given[0], {s.rows});
        py::array dlogits = call.output(given[1], {s.rows, s.columns}, {logits});
        {
          const Unlocked unlocked;
          call.run([&]<class T>(const Ops<T>& ops, T) {
            ops.softmax_cross_entropy(data<T>(logits), label, mutable_data<T>(losses),
                                      mutable_data<T>(dlogits), s);
          });
        }
        return py::make_tuple(losses, dlogits);
      },
      py::arg("logits"), py::arg("labels"), py::arg("out"));
}

}  // namespace chainrule::bindings
