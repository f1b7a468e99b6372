// A convolution with the max-pooling behind it, whose windows do not overlap. With windows of four
// pixels a thread's square of results is a window in each column, so the largest is taken there,
// and no pixel but the largest goes to memory; other windows are pooled from there. Backward is
// conv2d.cu's, with a gradient that is found at the maxima's places.
#include "cuda/conv2d.h"
#include "cuda/direct_weight.h"
#include "cuda/kernel.h"
#include "cuda/places.h"
#include "cuda/unpooled.h"

namespace chainrule::cuda {
namespace {

// The first of the largest of a window, eq. (63), or the first NaN.
template <class T>
struct WindowResult {
  T* y;
  uint16_t* argmax;
  int64_t filters;
  Finish<T> finish;
  bool wide;

  struct alignas(8) Places {
    uint16_t at[4];
  };

  template <int width>
  __device__ __forceinline__ void store(int64_t row, int64_t filter, T (&v)[4][width], int64_t,
                                        int64_t n) const {
    finish(v, filter, n);
    Places places{};
#pragma unroll
    for (int j = 0; j < width; ++j) {
#pragma unroll
      for (int i = 1; i < 4; ++i) {
        if (v[0][j] != v[0][j] || v[i][j] <= v[0][j]) continue;
        v[0][j] = v[i][j];
        places.at[j] = static_cast<uint16_t>(i);
      }
    }
    const int64_t to = row / 4 * filters + filter;
    store_row(v[0], y + to, wide, filter, n);
    if (wide && width == 4) {
      *reinterpret_cast<Places*>(argmax + to) = places;
      return;
    }
#pragma unroll
    for (int j = 0; j < width; ++j) {
      if (filter + j < n) argmax[to + j] = places.at[j];
    }
  }
};

bool fuses(const MaxPool2d& p) { return p.window.rows * p.window.columns == 4; }

int64_t filter_size(const Conv2d& s) { return s.window.rows * s.window.columns * s.in; }

Walk windows(const MaxPool2d& p) {
  return {p.batch, p.out_height, p.out_width, p.window.rows, p.window.columns};
}

// As conv2d's, so that pooling its result gives the same bits.
template <class T>
Plan<T> forward_plan(const Conv2d& s, const MaxPool2d& p) {
  const Plan<T> plan(s.batch * s.out_height * s.out_width, s.out, filter_size(s));
  return plan.with_rows(windows(p).count());
}

template <class T>
Plan<T> weight_plan(const Conv2d& s, const MaxPool2d& p) {
  return {s.out, filter_size(s), windows(p).count()};
}

// Of what is pooled from memory.
template <class T>
int64_t pixels_size(const Conv2d& s) {
  const int64_t size = s.batch * s.out_height * s.out_width * s.out;
  return ceil_div(size, piece_size<T>) * piece_size<T>;
}

}  // namespace

template <class T>
int64_t conv2d_pooled_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  if (fuses(p)) return forward_plan<T>(s, p).workspace();
  return pixels_size<T>(s) * static_cast<int64_t>(sizeof(T)) + conv2d_workspace<T>(s, workers);
}

template <class T>
void conv2d_pooled(const T* x, const T* weight, const T* bias, T* y, uint16_t* argmax, bool relu,
                   const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  T* const memory = static_cast<T*>(workspace.data);
  if (!fuses(p)) {
    conv2d(x, weight, bias, memory, relu, s,
           Workspace{memory + pixels_size<T>(s), workspace.workers});
    return max_pool2d<T>(memory, y, argmax, p);
  }
  const bool wide = stores_wide(y, s.out) && reinterpret_cast<uintptr_t>(argmax) % 8 == 0;
  const WindowResult<T> result{y, argmax, s.out, {bias, relu}, wide};
  if (forward_directly(x, weight, s, p, result)) return;
  multiply(forward_plan<T>(s, p), WindowRows<T>{sliding(x, s, windows(p))},
           Matrix<T, true>(weight, s.out, filter_size(s)), result, memory);
}

template <class T>
int64_t conv2d_pooled_backward_input_workspace(const Conv2d& s, const MaxPool2d&, int) {
  return backward_input_workspace<T>(s);
}

template <class T>
void conv2d_pooled_backward_input(const T* dy, const uint16_t* argmax, const T* weight, T* dx,
                                  const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  look_for_bad_places(argmax, p, bad_place_to_input);
  const Pooled<T> pooled(dy, argmax, p);
  backward_input(weight, dx, s, static_cast<T*>(workspace.data),
                 [&](const Sliding<T>& window) { return UnpooledRows<T>(pooled, window); });
}

template <class T>
int64_t conv2d_pooled_backward_weight_workspace(const Conv2d& s, const MaxPool2d& p, int) {
  const int64_t sums = ColumnSums<T>(p.batch * p.out_height * p.out_width, s.out).workspace();
  const DirectWeight<T> direct(nullptr, s, p);
  return larger(sums, direct.bands.fit ? direct.workspace() : weight_plan<T>(s, p).workspace());
}

template <class T>
void conv2d_pooled_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                   T* dbias, const Conv2d& s, const MaxPool2d& p,
                                   const Workspace& workspace) {
  T* const partial = static_cast<T*>(workspace.data);
  look_for_bad_places(argmax, p, bad_place_to_weight);
  const Pooled<T> pooled(dy, argmax, p);
  if (!weight_directly<true>(dy, argmax, x, dweight, s, p, partial)) {
    multiply(weight_plan<T>(s, p), UnpooledColumns<T>{pooled},
             WindowColumns<T>(sliding(x, s, windows(p))), MatrixResult<T>(dweight, filter_size(s)),
             partial);
  }
  ColumnSums<T>(pooled.windows, s.out).run(dy, dbias, partial);
}

CR_INSTANTIATE(conv2d_pooled_workspace);
CR_INSTANTIATE(conv2d_pooled);
CR_INSTANTIATE(conv2d_pooled_backward_input_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_input);
CR_INSTANTIATE(conv2d_pooled_backward_weight_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_weight);

}  // namespace chainrule::cuda
