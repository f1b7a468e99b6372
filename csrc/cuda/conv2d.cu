// Convolution, eq. (58)-(60), and its two backward passes, as products whose operands are read
// under the sliding window.
//
// forward          y[p, :] = sum over the window of x[p + (r, s), :] · weight[:, r, s, :]
// transposed backward input   the same over dy with each filter turned about, for each phase of the
// stride backward weight  dweight[:, r, s, c] = sum over p of dy[p, :] · x[p + (r, s), c]
//
// Few channels are done without the product, see direct.h.
#include "cuda/conv2d.h"
#include "cuda/direct_weight.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

int64_t filter_size(const Conv2d& s) { return s.window.rows * s.window.columns * s.in; }

Walk outputs(const Conv2d& s) { return {s.batch, s.out_height, s.out_width}; }

template <class T>
Plan<T> forward_plan(const Conv2d& s) {
  return {outputs(s).count(), s.out, filter_size(s)};
}

template <class T>
Plan<T> weight_plan(const Conv2d& s) {
  return {s.out, filter_size(s), outputs(s).count()};
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const Conv2d& s, int) {
  return forward_plan<T>(s).workspace();
}

template <class T>
void conv2d(const T* x, const T* weight, const T* bias, T* y, bool relu, const Conv2d& s,
            const Workspace& workspace) {
  const int64_t size = filter_size(s);
  const MatrixResult<T> result(y, s.out, {bias, relu});
  if (forward_directly(x, weight, s, unpooled(s), result)) return;
  multiply(forward_plan<T>(s), WindowRows<T>{sliding(x, s, outputs(s))},
           Matrix<T, true>(weight, s.out, size), result, static_cast<T*>(workspace.data));
}

template <class T>
int64_t conv2d_backward_input_workspace(const Conv2d& s, int) {
  return backward_input_workspace<T>(s);
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2d& s,
                           const Workspace& workspace) {
  backward_input(weight, dx, s, static_cast<T*>(workspace.data), [=](Sliding<T> window) {
    window.data = dy;
    return WindowRows<T>{window};
  });
}

template <class T>
int64_t conv2d_backward_weight_workspace(const Conv2d& s, int) {
  const int64_t sums = ColumnSums<T>(outputs(s).count(), s.out).workspace();
  const DirectWeight<T> direct(nullptr, s, unpooled(s));
  return larger(sums, direct.bands.fit ? direct.workspace() : weight_plan<T>(s).workspace());
}

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                            const Workspace& workspace) {
  T* const partial = static_cast<T*>(workspace.data);
  const Walk walk = outputs(s);
  if (!weight_directly<false>(dy, nullptr, x, dweight, s, unpooled(s), partial)) {
    multiply(weight_plan<T>(s), Matrix<T, false>(dy, s.out, s.out),
             WindowColumns<T>(sliding(x, s, walk)), MatrixResult<T>(dweight, filter_size(s)),
             partial);
  }
  ColumnSums<T>(walk.count(), s.out).run(dy, dbias, partial);
}

CR_INSTANTIATE(conv2d_workspace);
CR_INSTANTIATE(conv2d);
CR_INSTANTIATE(conv2d_backward_input_workspace);
CR_INSTANTIATE(conv2d_backward_input);
CR_INSTANTIATE(conv2d_backward_weight_workspace);
CR_INSTANTIATE(conv2d_backward_weight);

}  // namespace chainrule::cuda
