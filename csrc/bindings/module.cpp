#include "bindings/module.h"

PYBIND11_MODULE(_core, m) {
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
  b::bind_softmax(m);
  b::bind_softmax_cross_entropy(m);
  b::bind_squared_error(m);
  b::bind_conv2d(m);
  b::bind_conv2d_pooled(m);
  b::bind_max_pool2d(m);
  b::bind_dropout(m);
  b::bind_sgd(m);
  b::bind_count_correct(m);
  b::bind_cuda(m);
  b::bind_cuda_training(m);
}
