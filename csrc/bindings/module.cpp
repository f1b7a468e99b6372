#include "bindings/module.h"

// Hazard: in a sub-interpreter, pybind11 before Python 3.12 waits forever for a lock that its own
// thread holds. So the check comes before any code of pybind11. `checked_core` is not imported by
// this name: Python takes the module's name from PyInit__core.
extern "C" PyObject* PyInit_checked_core();
extern "C" PYBIND11_EXPORT PyObject* PyInit__core();
PyObject* PyInit__core() {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError,
                    "chainrule: must be imported in the main interpreter, got a sub-interpreter");
    return nullptr;
  }
  return PyInit_checked_core();
}

PYBIND11_MODULE(checked_core, m) {
  namespace b = chainrule::bindings;
  m.doc() = "Compiled kernels of chainrule. chainrule.ops is their public interface.";
  b::bind_system(m);
  b::bind_program(m);
  b::bind_workspace(m);
  b::bind_gather(m);
  b::bind_matmul(m);
  b::bind_linear(m);
  b::bind_relu(m);
  b::bind_leaky_relu(m);
  b::bind_sigmoid(m);
  b::bind_tanh(m);
  b::bind_gelu(m);
  b::bind_softmax(m);
  b::bind_softmax_cross_entropy(m);
  b::bind_binary_cross_entropy(m);
  b::bind_squared_error(m);
  b::bind_huber(m);
  b::bind_conv2d(m);
  b::bind_conv2d_pooled(m);
  b::bind_max_pool2d(m);
  b::bind_dropout(m);
  b::bind_sgd(m);
  b::bind_adam(m);
  b::bind_count_correct(m);
  b::bind_cuda(m);
  b::bind_cuda_training(m);
}
