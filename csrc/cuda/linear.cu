// y = x · weightᵀ + bias, eq. (32). Backward: eq. (37) without σ′, (38) and (39), summed over the
// batch.
#include "cuda/gemm/matrix_loader.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

Matmul forward_of(const Linear& s) { return {s.batch, s.out, s.in, false, true}; }
Matmul to_input(const Linear& s) { return {s.batch, s.in, s.out, false, false}; }
Matmul to_weight(const Linear& s) { return {s.out, s.in, s.batch, true, false}; }

template <class T>
int64_t workspace_of(const Matmul& s) {
  return GemmConfig<T>(s.m, s.n, s.k).workspace_bytes();
}

}  // namespace

template <class T>
int64_t linear_workspace(const Linear& s, int) {
  return workspace_of<T>(forward_of(s));
}

template <class T>
void linear(const T* x, const T* weight, const T* bias, T* y, bool relu, const Linear& s,
            const Workspace& workspace) {
  dense_gemm(x, weight, forward_of(s), MatrixOutput<T>(y, s.out, {bias, relu}),
             static_cast<T*>(workspace.data));
}

template <class T>
int64_t linear_backward_workspace(const Linear& s, int) {
  const int64_t products = max(workspace_of<T>(to_input(s)), workspace_of<T>(to_weight(s)));
  return max(products, ColumnSums<T>(s.batch, s.out).workspace_bytes());
}

template <class T>
void linear_backward(const T* dy, const T* x, const T* weight, T* dx, T* dweight, T* dbias,
                     const Linear& s, const Workspace& workspace) {
  T* const partials = static_cast<T*>(workspace.data);
  if (dx) dense_gemm(dy, weight, to_input(s), MatrixOutput<T>(dx, s.in), partials);
  dense_gemm(dy, x, to_weight(s), MatrixOutput<T>(dweight, s.in), partials);
  ColumnSums<T>(s.batch, s.out).run(dy, dbias, partials);
}

CR_INSTANTIATE(linear_workspace);
CR_INSTANTIATE(linear);
CR_INSTANTIATE(linear_backward_workspace);
CR_INSTANTIATE(linear_backward);

}  // namespace chainrule::cuda
