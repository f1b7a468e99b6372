// c = a · b, eq. (53); transposes are read in place or undone while packing, never made.
#include "cpu/kernels/gemm/gemm.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

template <class T>
Product<T> product(const T* a, const T* b, T* c, const Matmul& s) {
  return {.m = s.m,
          .n = s.n,
          .k = s.k,
          .a = a,
          .a_row = s.transpose_a ? 1 : s.k,
          .a_step = s.transpose_a ? s.m : 1,
          .b = b,
          .b_stride = s.transpose_b ? s.k : s.n,
          .b_transposed = s.transpose_b,
          .c = c};
}

}  // namespace

template <class T>
int64_t matmul_workspace(const Matmul& s, int workers) {
  return product<T>(nullptr, nullptr, nullptr, s).workspace(workers);
}

template <class T>
void matmul(const T* a, const T* b, T* c, const Matmul& s, const Workspace& workspace) {
  product(a, b, c, s).run(workspace);
}

CR_INSTANTIATE(matmul_workspace);
CR_INSTANTIATE(matmul);

}  // namespace chainrule::CR_ISA
