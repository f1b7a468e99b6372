// Convolution, eq. (58)-(60), and its backward passes, as implicit GEMMs over a sliding window:
//
//  - forward: y[p, :] = sum over (r, s) of x[p + (r, s), :] · weight[:, r, s, :], transposed;
//  - backward input: the same over dy with flipped filters, once per phase of the stride;
//  - backward weight: dweight[:, r, s, c] = sum over p of dy[p, :] · x[p + (r, s), c].
//
// Inputs with few channels use conv/few_channels.h instead of a GEMM.
#include "cuda/conv/backward_input.h"
#include "cuda/conv/few_channels_backward_weight.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

int64_t filter_size(const Conv2d& s) { return s.window.rows * s.window.columns * s.in; }

PixelIndexer outputs(const Conv2d& s) { return {s.batch, s.out_height, s.out_width}; }

template <class T>
GemmConfig<T> forward_config(const Conv2d& s) {
  return {outputs(s).count(), s.out, filter_size(s)};
}

template <class T>
GemmConfig<T> backward_weight_config(const Conv2d& s) {
  return {s.out, filter_size(s), outputs(s).count()};
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const Conv2d& s, int) {
  return forward_config<T>(s).workspace_bytes();
}

template <class T>
void conv2d(const T* x, const T* weight, const T* bias, T* y, bool relu, const Conv2d& s,
            const Workspace& workspace) {
  const int64_t size = filter_size(s);
  const MatrixOutput<T> output(y, s.out, {bias, relu});
  if (try_few_channels(x, weight, s, unit_windows(s), output)) return;
  run_gemm(forward_config<T>(s), WindowRowLoader<T>{make_sliding_window(x, s, outputs(s))},
           MatrixLoader<T, true>(weight, s.out, size), output, static_cast<T*>(workspace.data));
}

template <class T>
int64_t conv2d_backward_input_workspace(const Conv2d& s, int) {
  return backward_input_workspace<T>(s);
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2d& s,
                           const Workspace& workspace) {
  backward_input(weight, dx, s, static_cast<T*>(workspace.data), [=](SlidingWindow<T> window) {
    window.data = dy;
    return WindowRowLoader<T>{window};
  });
}

template <class T>
int64_t conv2d_backward_weight_workspace(const Conv2d& s, int) {
  const int64_t sums = ColumnSums<T>(outputs(s).count(), s.out).workspace_bytes();
  const FewChannelsBackwardWeight<T> few_channels(nullptr, s, unit_windows(s));
  return max(sums, few_channels.bands.supported ? few_channels.workspace_bytes()
                                                : backward_weight_config<T>(s).workspace_bytes());
}

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                            const Workspace& workspace) {
  T* const partials = static_cast<T*>(workspace.data);
  const PixelIndexer indexer = outputs(s);
  if (!try_few_channels_backward_weight<false>(dy, nullptr, x, dweight, s, unit_windows(s),
                                               partials)) {
    run_gemm(backward_weight_config<T>(s), MatrixLoader<T, false>(dy, s.out, s.out),
             WindowColumnLoader<T>(make_sliding_window(x, s, indexer)),
             MatrixOutput<T>(dweight, filter_size(s)), partials);
  }
  ColumnSums<T>(indexer.count(), s.out).run(dy, dbias, partials);
}

CR_INSTANTIATE(conv2d_workspace);
CR_INSTANTIATE(conv2d);
CR_INSTANTIATE(conv2d_backward_input_workspace);
CR_INSTANTIATE(conv2d_backward_input);
CR_INSTANTIATE(conv2d_backward_weight_workspace);
CR_INSTANTIATE(conv2d_backward_weight);

}  // namespace chainrule::cuda
