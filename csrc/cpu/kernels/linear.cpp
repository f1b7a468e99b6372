// Forward: y = x · weightᵀ + bias, eq. (32). Backward: eq. (37) without σ′, (38) and (39), summed
// over the batch. All three products use gemm.h, or sparse_gemm.h if the left operand has many
// zeros.
#include "cpu/kernels/gemm/sparse_gemm.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

namespace {

template <class T>
Gemm<T> forward_gemm(const T* x, const T* weight, const T* bias, T* y, bool relu, const Linear& s) {
  return {.m = s.batch,
          .n = s.out,
          .k = s.in,
          .a = x,
          .a_row = s.in,
          .a_step = 1,
          .b = weight,
          .b_stride = s.in,
          .b_transposed = true,
          .c = y,
          .bias = bias,
          .relu = relu};
}

template <class T>
Gemm<T> input_gradient(const T* dy, const T* weight, T* dx, const Linear& s) {
  return {.m = s.batch,
          .n = s.in,
          .k = s.out,
          .a = dy,
          .a_row = s.out,
          .a_step = 1,
          .b = weight,
          .b_stride = s.in,
          .b_transposed = false,
          .c = dx};
}

template <class T>
Gemm<T> weight_gradient(const T* dy, const T* x, T* dweight, const Linear& s) {
  return {.m = s.out,
          .n = s.in,
          .k = s.batch,
          .a = dy,
          .a_row = 1,
          .a_step = s.out,
          .b = x,
          .b_stride = s.in,
          .b_transposed = false,
          .c = dweight};
}

// The same with x and dy exchanged. The result is the transpose of dweight.
template <class T>
Gemm<T> weight_gradient_transposed(const T* dy, const T* x, T* dweight, const Linear& s) {
  return {.m = s.in,
          .n = s.out,
          .k = s.batch,
          .a = x,
          .a_row = 1,
          .a_step = s.in,
          .b = dy,
          .b_stride = s.out,
          .b_transposed = false,
          .c = dweight};
}

template <class T>
int64_t max_workspace(const Gemm<T>& gemm, int workers) {
  return max(gemm.workspace_size(workers), SparseGemm<T>(gemm).workspace_size(workers));
}

template <class T>
void run(const Gemm<T>& gemm, double density, const Workspace& workspace) {
  const SparseGemm<T> sparse(gemm);
  if (density < sparse.max_density && sparse.supports()) sparse.run(workspace);
  else gemm.run(workspace);
}

}  // namespace

template <class T>
int64_t linear_workspace(const Linear& s, int workers) {
  return max_workspace(forward_gemm<T>(nullptr, nullptr, nullptr, nullptr, false, s), workers);
}

template <class T>
void linear(const T* x, const T* weight, const T* bias, T* y, bool relu, const Linear& s,
            const Workspace& workspace) {
  const double density = SparseGemm<T>::density(x, s.batch * s.in);
  run(forward_gemm(x, weight, bias, y, relu, s), density, workspace);
}

template <class T>
int64_t linear_backward_workspace(const Linear& s, int workers) {
  const SparseGemm<T> transposed(weight_gradient_transposed<T>(nullptr, nullptr, nullptr, s), true);
  return max(transposed.workspace_size(workers),
             max(max_workspace(input_gradient<T>(nullptr, nullptr, nullptr, s), workers),
                 max_workspace(weight_gradient<T>(nullptr, nullptr, nullptr, s), workers)));
}

template <class T>
void linear_backward(const T* dy, const T* x, const T* weight, T* dx, T* dweight, T* dbias,
                     const Linear& s, const Workspace& workspace) {
  const double dy_density = SparseGemm<T>::density(dy, s.batch * s.out);
  if (dx) run(input_gradient(dy, weight, dx, s), dy_density, workspace);
  const double x_density = SparseGemm<T>::density(x, s.batch * s.in);
  const SparseGemm<T> transposed(weight_gradient_transposed(dy, x, dweight, s), true);
  if (x_density < dy_density && x_density < transposed.max_density && transposed.supports())
    transposed.run(workspace);
  else run(weight_gradient(dy, x, dweight, s), dy_density, workspace);
  column_sums(dy, s.batch, s.out, dbias);
}

CR_INSTANTIATE(linear_workspace);
CR_INSTANTIATE(linear);
CR_INSTANTIATE(linear_backward_workspace);
CR_INSTANTIATE(linear_backward);

}  // namespace chainrule::CR_ISA
