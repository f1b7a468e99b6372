// Convolution followed by max-pooling with non-overlapping windows. If a window has four pixels, a
// column of a thread's 4 x 4 fragment is one window. The maximum is then taken in registers, and
// only it is stored. Other windows are pooled from a buffer in memory. The backward passes are
// those of conv2d.cu, with the gradient read through argmax.
#include "cuda/argmax_check.h"
#include "cuda/conv/backward_input.h"
#include "cuda/conv/few_channels_backward_weight.h"
#include "cuda/conv/pooled_gradient_loader.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

// Stores the first maximum of each window, eq. (63), or the first NaN.
template <class T>
struct PooledOutput {
  T* y;
  uint16_t* argmax;
  int64_t filters;
  Epilogue<T> epilogue;
  bool vectorized;

  struct alignas(8) ArgmaxVec4 {
    uint16_t values[4];
  };

  template <int width>
  __device__ __forceinline__ void store(int64_t row, int64_t filter, T (&v)[4][width], int64_t,
                                        int64_t n) const {
    epilogue(v, filter, n);
    ArgmaxVec4 positions{};
#pragma unroll
    for (int j = 0; j < width; ++j) {
#pragma unroll
      for (int i = 1; i < 4; ++i) {
        if (v[0][j] != v[0][j] || v[i][j] <= v[0][j]) continue;
        v[0][j] = v[i][j];
        positions.values[j] = static_cast<uint16_t>(i);
      }
    }
    const int64_t to = row / 4 * filters + filter;
    store_row(v[0], y + to, vectorized, filter, n);
    if (vectorized && width == 4) {
      *reinterpret_cast<ArgmaxVec4*>(argmax + to) = positions;
      return;
    }
#pragma unroll
    for (int j = 0; j < width; ++j) {
      if (filter + j < n) argmax[to + j] = positions.values[j];
    }
  }
};

bool pools_in_registers(const MaxPool2d& p) { return p.window.rows * p.window.columns == 4; }

int64_t filter_size(const Conv2d& s) { return s.window.rows * s.window.columns * s.in; }

PixelIndexer windows(const MaxPool2d& p) {
  return {p.batch, p.out_height, p.out_width, p.window.rows, p.window.columns};
}

// The same split of k as in conv2d, so that pooling conv2d's result gives the same bits.
template <class T>
GemmConfig<T> forward_config(const Conv2d& s, const MaxPool2d& p) {
  const GemmConfig<T> config(s.batch * s.out_height * s.out_width, s.out, filter_size(s));
  return config.with_rows(windows(p).count());
}

template <class T>
GemmConfig<T> backward_weight_config(const Conv2d& s, const MaxPool2d& p) {
  return {s.out, filter_size(s), windows(p).count()};
}

// Elements of the buffer that holds the unpooled output.
template <class T>
int64_t unpooled_size(const Conv2d& s) {
  const int64_t size = s.batch * s.out_height * s.out_width * s.out;
  return ceil_div(size, vector_width<T>) * vector_width<T>;
}

}  // namespace

template <class T>
int64_t conv2d_pooled_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  if (pools_in_registers(p)) return forward_config<T>(s, p).workspace_bytes();
  return unpooled_size<T>(s) * static_cast<int64_t>(sizeof(T)) + conv2d_workspace<T>(s, workers);
}

template <class T>
void conv2d_pooled(const T* x, const T* weight, const T* bias, T* y, uint16_t* argmax, bool relu,
                   const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  T* const scratch = static_cast<T*>(workspace.data);
  if (!pools_in_registers(p)) {
    conv2d(x, weight, bias, scratch, relu, s,
           Workspace{scratch + unpooled_size<T>(s), workspace.workers});
    return max_pool2d<T>(scratch, y, argmax, p);
  }
  const bool vectorized = can_store_vec4(y, s.out) && reinterpret_cast<uintptr_t>(argmax) % 8 == 0;
  const PooledOutput<T> output{y, argmax, s.out, {bias, relu}, vectorized};
  if (try_few_channels(x, weight, s, p, output)) return;
  run_gemm(forward_config<T>(s, p), WindowRowLoader<T>{make_sliding_window(x, s, windows(p))},
           MatrixLoader<T, true>(weight, s.out, filter_size(s)), output, scratch);
}

template <class T>
int64_t conv2d_pooled_backward_input_workspace(const Conv2d& s, const MaxPool2d&, int) {
  return backward_input_workspace<T>(s);
}

template <class T>
void conv2d_pooled_backward_input(const T* dy, const uint16_t* argmax, const T* weight, T* dx,
                                  const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  check_argmax(argmax, p, bad_argmax_backward_input);
  const PooledGradient<T> pooled(dy, argmax, p);
  backward_input(
      weight, dx, s, static_cast<T*>(workspace.data),
      [&](const SlidingWindow<T>& window) { return PooledGradientRowLoader<T>(pooled, window); });
}

template <class T>
int64_t conv2d_pooled_backward_weight_workspace(const Conv2d& s, const MaxPool2d& p, int) {
  const int64_t sums = ColumnSums<T>(p.batch * p.out_height * p.out_width, s.out).workspace_bytes();
  const FewChannelsBackwardWeight<T> few_channels(nullptr, s, p);
  return max(sums, few_channels.bands.supported
                       ? few_channels.workspace_bytes()
                       : backward_weight_config<T>(s, p).workspace_bytes());
}

template <class T>
void conv2d_pooled_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                   T* dbias, const Conv2d& s, const MaxPool2d& p,
                                   const Workspace& workspace) {
  T* const partials = static_cast<T*>(workspace.data);
  check_argmax(argmax, p, bad_argmax_backward_weight);
  const PooledGradient<T> pooled(dy, argmax, p);
  if (!try_few_channels_backward_weight<true>(dy, argmax, x, dweight, s, p, partials)) {
    run_gemm(backward_weight_config<T>(s, p), PooledGradientColumnLoader<T>{pooled},
             WindowColumnLoader<T>(make_sliding_window(x, s, windows(p))),
             MatrixOutput<T>(dweight, filter_size(s)), partials);
  }
  ColumnSums<T>(pooled.windows, s.out).run(dy, dbias, partials);
}

CR_INSTANTIATE(conv2d_pooled_workspace);
CR_INSTANTIATE(conv2d_pooled);
CR_INSTANTIATE(conv2d_pooled_backward_input_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_input);
CR_INSTANTIATE(conv2d_pooled_backward_weight_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_weight);

}  // namespace chainrule::cuda
