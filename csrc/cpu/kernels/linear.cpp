// y = x · weightᵀ + bias, eq. (32); backward eq. (37) without σ′, (38) and (39), summed over the
// batch. All three are the product of product.h.
#include "cpu/kernels/gemm/sparse_gemm.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

namespace {

template <class T>
Product<T> forward(const T* x, const T* weight, const T* bias, T* y, bool relu, const Linear& s) {
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
Product<T> to_input(const T* dy, const T* weight, T* dx, const Linear& s) {
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
Product<T> to_weight(const T* dy, const T* x, T* dweight, const Linear& s) {
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

// The same with x and dy changing places: what it gives is dweight's transpose.
template <class T>
Product<T> to_weight_turned(const T* dy, const T* x, T* dweight, const Linear& s) {
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
int64_t most_workspace(const Product<T>& product, int workers) {
  return larger(product.workspace(workers), SparseProduct<T>(product).workspace(workers));
}

template <class T>
void run(const Product<T>& product, double density, const Workspace& lent) {
  const SparseProduct<T> sparse(product);
  if (density < sparse.sparse_enough && sparse.possible()) sparse.run(lent);
  else product.run(lent);
}

}  // namespace

template <class T>
int64_t linear_workspace(const Linear& s, int workers) {
  return most_workspace(forward<T>(nullptr, nullptr, nullptr, nullptr, false, s), workers);
}

template <class T>
void linear(const T* x, const T* weight, const T* bias, T* y, bool relu, const Linear& s,
            const Workspace& workspace) {
  const double density = SparseProduct<T>::density(x, s.batch * s.in);
  run(forward(x, weight, bias, y, relu, s), density, workspace);
}

template <class T>
int64_t linear_backward_workspace(const Linear& s, int workers) {
  const SparseProduct<T> turned(to_weight_turned<T>(nullptr, nullptr, nullptr, s), true);
  return larger(turned.workspace(workers),
                larger(most_workspace(to_input<T>(nullptr, nullptr, nullptr, s), workers),
                       most_workspace(to_weight<T>(nullptr, nullptr, nullptr, s), workers)));
}

template <class T>
void linear_backward(const T* dy, const T* x, const T* weight, T* dx, T* dweight, T* dbias,
                     const Linear& s, const Workspace& workspace) {
  const double of_dy = SparseProduct<T>::density(dy, s.batch * s.out);
  if (dx) run(to_input(dy, weight, dx, s), of_dy, workspace);
  const double of_x = SparseProduct<T>::density(x, s.batch * s.in);
  const SparseProduct<T> turned(to_weight_turned(dy, x, dweight, s), true);
  if (of_x < of_dy && of_x < turned.sparse_enough && turned.possible()) turned.run(workspace);
  else run(to_weight(dy, x, dweight, s), of_dy, workspace);
  sum_rows(dy, s.batch, s.out, dbias);
}

CR_INSTANTIATE(linear_workspace);
CR_INSTANTIATE(linear);
CR_INSTANTIATE(linear_backward_workspace);
CR_INSTANTIATE(linear_backward);

}  // namespace chainrule::CR_ISA
