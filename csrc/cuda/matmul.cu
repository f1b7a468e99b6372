// c = a · b, eq. (53); transposes are undone on the way into shared memory.
#include "cuda/gemm/matrix_loader.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {

template <class T>
void product(const T* a, const T* b, const Matmul& s, const MatrixResult<T>& c, T* partial) {
  const Plan<T> plan(s.m, s.n, s.k);
  const auto with = [&](const auto& left) {
    if (s.transpose_b) multiply(plan, left, Matrix<T, true>(b, s.n, s.k), c, partial);
    else multiply(plan, left, Matrix<T, false>(b, s.n, s.n), c, partial);
  };
  if (s.transpose_a) with(Matrix<T, false>(a, s.m, s.m));
  else with(Matrix<T, true>(a, s.m, s.k));
}

template void product(const float*, const float*, const Matmul&, const MatrixResult<float>&,
                      float*);
template void product(const double*, const double*, const Matmul&, const MatrixResult<double>&,
                      double*);

template <class T>
int64_t matmul_workspace(const Matmul& s, int) {
  return Plan<T>(s.m, s.n, s.k).workspace();
}

template <class T>
void matmul(const T* a, const T* b, T* c, const Matmul& s, const Workspace& workspace) {
  product(a, b, s, MatrixResult<T>(c, s.n), static_cast<T*>(workspace.data));
}

CR_INSTANTIATE(matmul_workspace);
CR_INSTANTIATE(matmul);

}  // namespace chainrule::cuda
