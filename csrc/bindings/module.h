// One bind function per operation: bindings/<op>.cpp adds its functions to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace chainrule::bindings {

void bind_matmul(pybind11::module_& m);
void bind_linear(pybind11::module_& m);
void bind_relu(pybind11::module_& m);
void bind_leaky_relu(pybind11::module_& m);
void bind_sigmoid(pybind11::module_& m);
void bind_tanh(pybind11::module_& m);
void bind_gelu(pybind11::module_& m);
void bind_softmax(pybind11::module_& m);
void bind_softmax_cross_entropy(pybind11::module_& m);
void bind_binary_cross_entropy(pybind11::module_& m);
void bind_squared_error(pybind11::module_& m);
void bind_huber(pybind11::module_& m);
void bind_conv2d(pybind11::module_& m);
void bind_conv2d_pooled(pybind11::module_& m);
void bind_max_pool2d(pybind11::module_& m);
void bind_dropout(pybind11::module_& m);
void bind_gather(pybind11::module_& m);
void bind_sgd(pybind11::module_& m);
void bind_adam(pybind11::module_& m);
void bind_count_correct(pybind11::module_& m);
void bind_program(pybind11::module_& m);
void bind_workspace(pybind11::module_& m);
void bind_system(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_cuda_training(pybind11::module_& m);

}  // namespace chainrule::bindings
