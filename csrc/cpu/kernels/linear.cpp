// y = x · weightᵀ + bias, eq. (32); backward eq. (37) without σ′, (38) and (39), summed over the
// batch. All three are the product of gemm.h.
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
int64_t linear_workspace(const Linear& s, int workers) {
  return Product<T>::workspace(s.out, s.in, workers);
}

template <class T>
void linear(const T* x, const T* weight, const T* bias, T* y, bool rectify, const Linear& s,
            const Workspace& workspace) {
  const Product<T> product{
      .m = s.batch,
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
      .rectify = rectify,
  };
  product.run(workspace);
}

template <class T>
int64_t linear_backward_workspace(const Linear& s, int workers) {
  return larger(Product<T>::workspace(s.in, s.out, workers),
                Product<T>::workspace(s.in, s.batch, workers));
}

template <class T>
void linear_backward(const T* dy, const T* x, const T* weight, T* dx, T* dweight, T* dbias,
                     const Linear& s, const Workspace& workspace) {
  if (dx) {
    const Product<T> to_input{
        .m = s.batch,
        .n = s.in,
        .k = s.out,
        .a = dy,
        .a_row = s.out,
        .a_step = 1,
        .b = weight,
        .b_stride = s.in,
        .b_transposed = false,
        .c = dx,
    };
    to_input.run(workspace);
  }
  const Product<T> to_weight{
      .m = s.out,
      .n = s.in,
      .k = s.batch,
      .a = dy,
      .a_row = 1,
      .a_step = s.out,
      .b = x,
      .b_stride = s.in,
      .b_transposed = false,
      .c = dweight,
  };
  to_weight.run(workspace);
  sum_rows(dy, s.batch, s.out, dbias);
}

CR_INSTANTIATE(linear_workspace);
CR_INSTANTIATE(linear);
CR_INSTANTIATE(linear_backward_workspace);
CR_INSTANTIATE(linear_backward);

}  // namespace chainrule::CR_ISA
