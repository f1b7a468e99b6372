// c = a · b, eq. (53). Transposed operands are read by their strides; no transpose is stored.
#include "cuda/gemm/matrix_loader.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {

template <class T>
void dense_gemm(const T* a, const T* b, const Matmul& s, const MatrixOutput<T>& c, T* partials) {
  const GemmConfig<T> config(s.m, s.n, s.k);
  const auto with = [&](const auto& left) {
    if (s.transpose_b) run_gemm(config, left, MatrixLoader<T, true>(b, s.n, s.k), c, partials);
    else run_gemm(config, left, MatrixLoader<T, false>(b, s.n, s.n), c, partials);
  };
  if (s.transpose_a) with(MatrixLoader<T, false>(a, s.m, s.m));
  else with(MatrixLoader<T, true>(a, s.m, s.k));
}

template void dense_gemm(const float*, const float*, const Matmul&, const MatrixOutput<float>&,
                         float*);
template void dense_gemm(const double*, const double*, const Matmul&, const MatrixOutput<double>&,
                         double*);

template <class T>
int64_t matmul_workspace(const Matmul& s, int) {
  return GemmConfig<T>(s.m, s.n, s.k).workspace_bytes();
}

template <class T>
void matmul(const T* a, const T* b, T* c, const Matmul& s, const Workspace& workspace) {
  dense_gemm(a, b, s, MatrixOutput<T>(c, s.n), static_cast<T*>(workspace.data));
}

CR_INSTANTIATE(matmul_workspace);
CR_INSTANTIATE(matmul);

}  // namespace chainrule::cuda
