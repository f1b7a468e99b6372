// What a training step on the GPU records beside the operations.
#include "bindings/call.h"
#include "bindings/cuda_array.h"
#include "bindings/module.h"
#include "bindings/scalars.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

template <class T>
constexpr bool single = sizeof(T) == sizeof(float);

// `order` and `rates` are those of an epoch, long enough for every value that `position` takes.
void begin_step(const py::object& order_, const py::object& rates_, const py::object& pass_,
                const py::object& classes_, const py::object& position_, const py::object& batch_,
                const py::object& chosen_, const py::object& chosen_classes_,
                const py::object& rate_, const py::object& this_pass_) {
  require_gpu("begin_step");
  Call call("begin_step");
  const Operand order = call.fixed("order", order_, Type::i64, 1);
  const Operand rates = call.fixed("rates", rates_, Type::f64, 1);
  const Operand pass = call.fixed("pass", pass_, Type::u64, 1);
  const Operand position = call.fixed("position", position_, Type::i64, 1);
  const Operand chosen = call.fixed("chosen", chosen_, Type::i64, 1);
  const Operand rate = call.fixed("rate", rate_, Type::f64, 1);
  const Operand this_pass = call.fixed("this_pass", this_pass_, Type::u64, 1);
  cuda::BeginStep s{
      .order = data<int64_t>(order),
      .rates = data<double>(rates),
      .first_pass = data<uint64_t>(pass),
      .classes = nullptr,
      .position = data<int64_t>(position),
      .batch = integer(call, "batch", batch_, 1, INT64_MAX),
      .count = chosen.size(),
      .indices = mutable_data<int64_t>(chosen),
      .batch_classes = nullptr,
      .rate = mutable_data<double>(rate),
      .pass = mutable_data<uint64_t>(this_pass),
  };
  if (!classes_.is_none()) {
    s.classes = data<int64_t>(call.fixed("classes", classes_, Type::i64, 1));
    s.batch_classes = mutable_data<int64_t>(
        call.fixed("chosen_classes", chosen_classes_, Type::i64, chosen.size()));
  }
  call.run([=](const auto&, auto) { cuda::training_step_kernels().begin(s); });
}

void end_step(const py::object& losses_, const py::object& output_, const py::object& classes_,
              const py::object& sums_, const py::object& right_, const py::object& rate_,
              const py::object& stopped_, const py::object& position_) {
  require_gpu("end_step");
  Call call("end_step");
  const Operand losses = call.input("losses", losses_, 1);
  const Operand output = call.input("output", output_);
  const Operand sums = call.fixed("sums", sums_, Type::f64, 1);
  const Operand right = call.fixed("right", right_, Type::i64, 1);
  const Operand rate = call.fixed("rate", rate_, Type::f64, 1);
  const Operand stopped = call.fixed("stopped", stopped_, Type::i64, 1);
  const Operand position = call.fixed("position", position_, Type::i64, 1);
  const int64_t count = losses.size();
  const int64_t columns = count > 0 ? output.size() / count : 0;
  const int64_t* classes = nullptr;
  if (!classes_.is_none() && columns > 0) {
    classes = data<int64_t>(call.fixed("classes", classes_, Type::i64, count));
  }
  call.run([=]<class T>(const Ops<T>&, T) {
    const cuda::EndStep<T> s{data<T>(losses),
                             data<T>(output),
                             classes,
                             count,
                             columns,
                             mutable_data<double>(sums),
                             mutable_data<int64_t>(right),
                             mutable_data<double>(rate),
                             mutable_data<int64_t>(stopped),
                             mutable_data<int64_t>(position)};
    if constexpr (single<T>) {
      cuda::training_step_kernels().end_f32(s);
    } else {
      cuda::training_step_kernels().end_f64(s);
    }
  });
}

// result becomes the norm; parts are norm_parts(size) numbers to work in.
void norm(const py::object& vector_, const py::object& parts_, const py::object& result_) {
  require_gpu("norm");
  Call call("norm");
  const Operand vector = call.input("vector", vector_);
  const int64_t size = vector.size();
  const Operand parts = call.fixed("parts", parts_, Type::f64, cuda::norm_partials_size(size));
  const Operand result = call.fixed("result", result_, Type::f64, 1);
  call.run([=]<class T>(const Ops<T>&, T) {
    const cuda::Norm<T> s{data<T>(vector), size, mutable_data<double>(parts),
                          mutable_data<double>(result)};
    if constexpr (single<T>) {
      cuda::training_step_kernels().norm_f32(s);
    } else {
      cuda::training_step_kernels().norm_f64(s);
    }
  });
}

void clip_to_norm(const py::object& vector_, const py::object& limit_, const py::object& norm_) {
  require_gpu("clip_to_norm");
  Call call("clip_to_norm");
  const Operand vector = call.updated("vector", vector_);
  const double limit = number(call, "limit", limit_);
  const Operand length = call.fixed("norm", norm_, Type::f64, 1);
  const int64_t size = vector.size();
  call.run([=]<class T>(const Ops<T>&, T) {
    T* const elements = mutable_data<T>(vector);
    if constexpr (single<T>) {
      cuda::training_step_kernels().clip_f32(elements, size, limit, data<double>(length));
    } else {
      cuda::training_step_kernels().clip_f64(elements, size, limit, data<double>(length));
    }
  });
}

}  // namespace

void bind_cuda_training(py::module_& m) {
  m.def("cuda_begin_step", &begin_step, py::arg("order"), py::arg("rates"), py::arg("pass_"),
        py::arg("classes"), py::arg("position"), py::arg("batch"), py::arg("chosen"),
        py::arg("chosen_classes"), py::arg("rate"), py::arg("this_pass"));
  m.def("cuda_end_step", &end_step, py::arg("losses"), py::arg("output"), py::arg("classes"),
        py::arg("sums"), py::arg("right"), py::arg("rate"), py::arg("stopped"),
        py::arg("position"));
  m.def("cuda_norm_parts", &cuda::norm_partials_size, py::arg("size"));
  m.def("cuda_norm", &norm, py::arg("vector"), py::arg("parts"), py::arg("result"));
  m.def("cuda_clip_to_norm", &clip_to_norm, py::arg("vector"), py::arg("limit"), py::arg("norm"));
}

}  // namespace chainrule::bindings
