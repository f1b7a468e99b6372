// y = x · weightᵀ + bias, eq. (32); backward eq. (37) without σ′, (38) and (39), summed over the
// batch. All three are the product of product.h.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/product.h"

namespace chainrule::CR_ISA {

namespace {

template <class T>
Product<T> forward(const T* x, const T* weight, const T* bias, T* y, bool rectify,
                   const Linear& s) {
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
          .rectify = rectify};
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

}  // namespace

template <class T>
int64_t linear_workspace(const Linear& s, int workers) {
  return forward<T>(nullptr, nullptr, nullptr, nullptr, false, s).workspace(workers);
}

template <class T>
void linear(const T* x, const T* weight, const T* bias, T* y, bool rectify, const Linear& s,
            const Workspace& workspace) {
  forward(x, weight, bias, y, rectify, s).run(workspace);
}

template <class T>
int64_t linear_backward_workspace(const Linear& s, int workers) {
  return larger(to_input<T>(nullptr, nullptr, nullptr, s).workspace(workers),
                to_weight<T>(nullptr, nullptr, nullptr, s).workspace(workers));
}

template <class T>
void linear_backward(const T* dy, const T* x, const T* weight, T* dx, T* dweight, T* dbias,
                     const Linear& s, const Workspace& workspace) {
  if (dx) to_input(dy, weight, dx, s).run(workspace);
  to_weight(dy, x, dweight, s).run(workspace);
  sum_rows(dy, s.batch, s.out, dbias);
}

CR_INSTANTIATE(linear_workspace);
CR_INSTANTIATE(linear);
CR_INSTANTIATE(linear_backward_workspace);
CR_INSTANTIATE(linear_backward);

}  // namespace chainrule::CR_ISA
