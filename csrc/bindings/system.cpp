// Choice of the backend and the number of threads, and facts about the build.
#include <pybind11/stl.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "bindings/call.h"
#include "bindings/module.h"
#include "bindings/scalars.h"
#include "cpu/available_cpus.h"
#include "cpu/convolution_precision.h"
#include "cpu/dispatch.h"
#include "cpu/thread_count_tuner.h"

namespace chainrule::bindings {
namespace {

std::vector<std::string> op_names() {
  return {
#define CR_OP(name, parameters) #name,
#define CR_WORKSPACE(name, parameters)
#include "core/ops.def"
  };
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string impossible_backend(const std::string& operation, const std::string& name) {
  return operation + ": backend must be one of " + join(backends_runnable()) + ", got \"" + name +
         '"';
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

// An invalid value is an error: a misspelled name must not silently select another backend.
void apply_environment() {
  if (const char* const name = std::getenv("CHAINRULE_BACKEND"); name && *name) {
    if (!select_backend(name)) {
      throw py::import_error(impossible_backend("CHAINRULE_BACKEND", name));
    }
  }
  if (const char* const text = std::getenv("CHAINRULE_NUM_THREADS"); text && *text) {
    char* end = nullptr;
    const long count = std::strtol(text, &end, 10);
    if (*end != '\0' || count < 1 || count > 4096) {
      throw py::import_error("CHAINRULE_NUM_THREADS: must be an integer in [1, 4096], got \"" +
                             std::string(text) + '"');
    }
    set_num_threads(static_cast<int>(count));
  } else if (const char* const omp = std::getenv("OMP_NUM_THREADS")) {
    // The variable of OpenMP, which joblib and others set in their workers: a list with the number
    // for each level of nesting. As in OpenMP, an invalid value counts as unset.
    char* end = nullptr;
    const long count = std::strtol(omp, &end, 10);
    end += std::strspn(end, " \t");
    if (end != omp && (*end == '\0' || *end == ',') && count >= 1) {
      set_num_threads(static_cast<int>(std::min<long>(count, available_cpus())));
    }
  }
}

}  // namespace

void bind_system(py::module_& m) {
  m.def("op_names", &op_names);
  m.def("backends_compiled", &backends_compiled);
  m.def("backends", &backends_runnable);
  m.def("backend", [] { return std::string(active_backend().name); });
  m.def(
      "set_backend",
      [](const py::object& name_) {
        const std::string name = text(Call("set_backend"), "name", name_);
        if (!select_backend(name)) throw py::value_error(impossible_backend("set_backend", name));
      },
      py::arg("name"));
  m.def("num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](const py::object& n) {
        const Call call("set_num_threads");
        set_num_threads(static_cast<int>(integer(call, "n", n, 1, 4096)));
      },
      py::arg("n"));
  m.def("convolution_precision", [] {
    const bool fast = convolution_precision() == ConvolutionPrecision::fast;
    return std::string(fast ? "fast" : "highest");
  });
  m.def(
      "set_convolution_precision",
      [](const py::object& name_) {
        const std::string name = text(Call("set_convolution_precision"), "precision", name_);
        if (name != "fast" && name != "highest") {
          throw py::value_error(
              "set_convolution_precision: precision must be \"fast\" or \"highest\", got \"" +
              name + '"');
        }
        set_convolution_precision(name == "fast" ? ConvolutionPrecision::fast
                                                 : ConvolutionPrecision::highest);
      },
      py::arg("precision"));
  m.def("available_cpus", &available_cpus);
  m.def(
      "cgroup_cpus", [](const std::string& root) { return cgroup_cpus(root.c_str()); },
      py::arg("root") = "");
  py::class_<ThreadCountTuner>(m, "ThreadCountTuner")
      .def(py::init<int>(), py::arg("max_threads"))
      .def("threads", &ThreadCountTuner::threads)
      .def("record", &ThreadCountTuner::record, py::arg("nanoseconds"));
  m.def("compiler", &compiler);
  m.def("version", [] { return std::string(CHAINRULE_VERSION); });
  if (!install_fork_handler()) throw std::bad_alloc();
  apply_environment();
}

}  // namespace chainrule::bindings
