// Kernels that a training step on the GPU records beside the operations.
#include "bindings/call.h"
#include "bindings/cuda_array.h"
#include "bindings/module.h"
#include "bindings/scalars.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

template <class T>
constexpr bool is_float = sizeof(T) == sizeof(float);

// Starts a step, see cuda::BeginStep. `order` and `rates` must cover every value of `position`.
void begin_step(const py::object& order_, const py::object& rates_, const py::object& first_pass_,
                const py::object& steps_done_, const py::object& classes_,
                const py::object& batch_size, const py::object& position_,
                const py::object& indices_, const py::object& batch_classes_,
                const py::object& rate_, const py::object& pass_number_,
                const py::object& step_number_) {
  require_gpu("begin_step");
  Call call("begin_step");
  const ArrayView order = call.gpu_buffer("order", order_, DType::i64, 1);
  const ArrayView rates = call.gpu_buffer("rates", rates_, DType::f64, 1);
  const ArrayView first_pass = call.gpu_buffer("first_pass", first_pass_, DType::u64, 1);
  const ArrayView steps_done = call.gpu_buffer("steps_done", steps_done_, DType::u64, 1);
  const ArrayView position = call.gpu_buffer("position", position_, DType::i64, 1);
  const ArrayView indices = call.gpu_buffer("indices", indices_, DType::i64, 1);
  const ArrayView rate = call.gpu_buffer("rate", rate_, DType::f64, 1);
  const ArrayView pass_number = call.gpu_buffer("pass_number", pass_number_, DType::u64, 1);
  const ArrayView step_number = call.gpu_buffer("step_number", step_number_, DType::u64, 1);
  cuda::BeginStep s{
      .order = data<int64_t>(order),
      .rates = data<double>(rates),
      .first_pass = data<uint64_t>(first_pass),
      .steps_done = data<uint64_t>(steps_done),
      .classes = nullptr,
      .position = data<int64_t>(position),
      .batch = integer(call, "batch_size", batch_size, 1, INT64_MAX),
      .count = indices.size(),
      .indices = mutable_data<int64_t>(indices),
      .batch_classes = nullptr,
      .rate = mutable_data<double>(rate),
      .pass = mutable_data<uint64_t>(pass_number),
      .step_number = mutable_data<uint64_t>(step_number),
  };
  if (!classes_.is_none()) {
    s.classes = data<int64_t>(call.gpu_buffer("classes", classes_, DType::i64, 1));
    s.batch_classes = mutable_data<int64_t>(
        call.gpu_buffer("batch_classes", batch_classes_, DType::i64, indices.size()));
  }
  call.run([=](const auto&, auto) { cuda::training_step_kernels().begin(s); });
}

// Ends a step, see cuda::EndStep.
void end_step(const py::object& losses_, const py::object& output_, const py::object& classes_,
              const py::object& sums_, const py::object& correct_, const py::object& rate_,
              const py::object& stopped_, const py::object& position_) {
  require_gpu("end_step");
  Call call("end_step");
  const ArrayView losses = call.input("losses", losses_, 1);
  const ArrayView output = call.input("output", output_);
  const ArrayView sums = call.gpu_buffer("sums", sums_, DType::f64, 1);
  const ArrayView correct = call.gpu_buffer("correct", correct_, DType::i64, 1);
  const ArrayView rate = call.gpu_buffer("rate", rate_, DType::f64, 1);
  const ArrayView stopped = call.gpu_buffer("stopped", stopped_, DType::i64, 1);
  const ArrayView position = call.gpu_buffer("position", position_, DType::i64, 1);
  const int64_t count = losses.size();
  const int64_t columns = count > 0 ? output.size() / count : 0;
  const int64_t* classes = nullptr;
  if (!classes_.is_none() && columns > 0) {
    classes = data<int64_t>(call.gpu_buffer("classes", classes_, DType::i64, count));
  }
  call.run([=]<class T>(const Ops<T>&, T) {
    const cuda::EndStep<T> s{data<T>(losses),
                             data<T>(output),
                             classes,
                             count,
                             columns,
                             mutable_data<double>(sums),
                             mutable_data<int64_t>(correct),
                             mutable_data<double>(rate),
                             mutable_data<int64_t>(stopped),
                             mutable_data<int64_t>(position)};
    if constexpr (is_float<T>) {
      cuda::training_step_kernels().end_f32(s);
    } else {
      cuda::training_step_kernels().end_f64(s);
    }
  });
}

// Writes the norm of `vector` to `result`. `partials` is scratch of norm_partials_size(size)
// numbers.
void norm(const py::object& vector_, const py::object& partials_, const py::object& result_) {
  require_gpu("norm");
  Call call("norm");
  const ArrayView vector = call.input("vector", vector_);
  const int64_t size = vector.size();
  const ArrayView partials =
      call.gpu_buffer("partials", partials_, DType::f64, cuda::norm_partials_size(size));
  const ArrayView result = call.gpu_buffer("result", result_, DType::f64, 1);
  call.run([=]<class T>(const Ops<T>&, T) {
    const cuda::Norm<T> s{data<T>(vector), size, mutable_data<double>(partials),
                          mutable_data<double>(result)};
    if constexpr (is_float<T>) {
      cuda::training_step_kernels().norm_f32(s);
    } else {
      cuda::training_step_kernels().norm_f64(s);
    }
  });
}

// Scales `vector` to the norm `limit` if its norm, `norm`, is larger.
void clip_to_norm(const py::object& vector_, const py::object& limit_, const py::object& norm_) {
  require_gpu("clip_to_norm");
  Call call("clip_to_norm");
  const ArrayView vector = call.updated("vector", vector_);
  const double limit = number(call, "limit", limit_);
  const ArrayView length = call.gpu_buffer("norm", norm_, DType::f64, 1);
  const int64_t size = vector.size();
  call.run([=]<class T>(const Ops<T>&, T) {
    T* const elements = mutable_data<T>(vector);
    if constexpr (is_float<T>) {
      cuda::training_step_kernels().clip_f32(elements, size, limit, data<double>(length));
    } else {
      cuda::training_step_kernels().clip_f64(elements, size, limit, data<double>(length));
    }
  });
}

}  // namespace

void bind_cuda_training(py::module_& m) {
  m.def("cuda_begin_step", &begin_step, py::kw_only(), py::arg("order"), py::arg("rates"),
        py::arg("first_pass"), py::arg("steps_done"), py::arg("classes"), py::arg("batch_size"),
        py::arg("position"), py::arg("indices"), py::arg("batch_classes"), py::arg("rate"),
        py::arg("pass_number"), py::arg("step_number"));
  m.def("cuda_end_step", &end_step, py::kw_only(), py::arg("losses"), py::arg("output"),
        py::arg("classes"), py::arg("sums"), py::arg("correct"), py::arg("rate"),
        py::arg("stopped"), py::arg("position"));
  m.def("cuda_norm_partials_size", &cuda::norm_partials_size, py::arg("size"));
  m.def("cuda_norm", &norm, py::arg("vector"), py::arg("partials"), py::arg("result"));
  m.def("cuda_clip_to_norm", &clip_to_norm, py::arg("vector"), py::arg("limit"), py::arg("norm"));
}

}  // namespace chainrule::bindings
