#include "cpu/count_correct.h"

#include <algorithm>

#include "bindings/call.h"
#include "bindings/conv_shapes.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_count_correct(py::module_& m) {
  m.def(
      "count_correct",
      [](const py::object& output_, const py::object& classes_) {
        Call call("count_correct", &cpu());
        const ArrayView output = call.input("output", output_, 2);
        const int64_t rows = dim(output, 0), columns = dim(output, 1);
        const ArrayView classes = call.integers("classes", classes_, std::max<int64_t>(2, columns));
        require_shape(call, "classes", classes, {rows});
        const int64_t* const c = data<int64_t>(classes);
        return output.type() == DType::f64 ? count_correct(data<double>(output), c, rows, columns)
                                           : count_correct(data<float>(output), c, rows, columns);
      },
      py::arg("output"), py::arg("classes"));
}

}  // namespace chainrule::bindings
