#include <cmath>

#include "cuda/long_sum.h"
#include "cuda/runtime/launch.h"
#include "cuda/training_step.h"

namespace chainrule::cuda {
namespace {

constexpr int threads = 256;

int64_t blocks_for(int64_t items, int64_t each) { return (items + each - 1) / each; }

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0; }

// Returns the block's sum of `value` by pairwise summation in a fixed order.
template <class V>
__device__ V block_sum(V value, V* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const V total = shared[0];
  __syncthreads();
  return total;
}

__global__ void __launch_bounds__(threads) begin_kernel(BeginStep s) {
  const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int64_t step = *s.position;
  if (i == 0) {
    *s.rate = s.rates[step];
    *s.pass = *s.first_pass + static_cast<uint64_t>(step);
    *s.step_number = *s.steps_done + static_cast<uint64_t>(step) + 1;
  }
  if (i >= s.count) return;
  const int64_t instance = s.order[step * s.batch + i];
  s.indices[i] = instance;
  if (s.classes) s.batch_classes[i] = s.classes[instance];
}

// The predicted class: the index of the first maximum, or of the first NaN, as numpy.argmax. One
// column is the logit of class 1, against class 0. NaN there is no class, -1.
template <class T>
__device__ int64_t predicted_class(const T* row, int64_t columns) {
  if (columns == 1) return row[0] > 0 ? 1 : row[0] <= 0 ? 0 : -1;
  int64_t best = 0;
  T value = row[0];
  for (int64_t j = 1; j < columns && value == value; ++j) {
    const T candidate = row[j];
    if (candidate > value || candidate != candidate) {
      value = candidate;
      best = j;
    }
  }
  return best;
}

// One block: a batch has few rows, and the order of the sum is fixed.
template <class T>
__global__ void __launch_bounds__(threads) end_kernel(EndStep<T> s) {
  __shared__ double sums[threads];
  __shared__ int64_t counts[threads];
  LongSum<double> losses;
  int64_t correct = 0;
  for (int64_t i = threadIdx.x; i < s.count; i += threads) {
    losses.part += static_cast<double>(s.losses[i]);
    losses.added(i / threads + 1);
    if (s.classes) correct += predicted_class(s.output + i * s.columns, s.columns) == s.classes[i];
  }
  const double sum = block_sum(losses.total(), sums);
  correct = block_sum(correct, counts);
  if (threadIdx.x != 0) return;
  const int64_t step = *s.position;
  s.sums[step] = sum;
  s.correct[step] = correct;
  if (!is_finite(sum)) *s.stopped = 1;
  if (*s.stopped) *s.rate = NAN;
  *s.position = step + 1;
}

// Elements above the threshold are scaled down before squaring and summed separately. So both sums
// are finite for up to 2^63 elements. NaN goes to the scaled sum.
constexpr double scaling_threshold = 0x1p480, scale_down = 0x1p-600;

template <class T>
__global__ void __launch_bounds__(threads)
    squares_kernel(const T* vector, int64_t size, double* partials) {
  __shared__ double sums[threads];
  const int64_t start = int64_t{blockIdx.x} * norm_elements_per_block;
  const int64_t end =
      start + norm_elements_per_block < size ? start + norm_elements_per_block : size;
  double sum = 0, scaled = 0;
  for (int64_t i = start + threadIdx.x; i < end; i += threads) {
    const double x = static_cast<double>(vector[i]);
    if (fabs(x) <= scaling_threshold) sum += x * x;
    else scaled += (x * scale_down) * (x * scale_down);
  }
  sum = block_sum(sum, sums);
  scaled = block_sum(scaled, sums);
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = sum;
  partials[gridDim.x + blockIdx.x] = scaled;
}

__global__ void __launch_bounds__(threads)
    norm_kernel(const double* partials, int64_t count, double* result) {
  __shared__ double sums[threads];
  LongSum<double> unscaled_sums, scaled_sums;
  for (int64_t i = threadIdx.x; i < count; i += threads) {
    unscaled_sums.part += partials[i];
    unscaled_sums.added(i / threads + 1);
    scaled_sums.part += partials[count + i];
    scaled_sums.added(i / threads + 1);
  }
  const double sum = block_sum(unscaled_sums.total(), sums);
  const double scaled = block_sum(scaled_sums.total(), sums);
  if (threadIdx.x != 0) return;
  *result = scaled == 0 ? sqrt(sum) : sqrt(scaled + sum * scale_down * scale_down) / scale_down;
}

template <class T>
__global__ void __launch_bounds__(threads)
    clip_kernel(T* vector, int64_t size, double limit, const double* norm) {
  const double length = *norm;
  if (!(length > limit) || !is_finite(length)) return;
  const T factor = static_cast<T>(limit / length);
  const int64_t i = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < size) vector[i] *= factor;
}

dim3 grid(int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); }

void begin(const BeginStep& s) {
  launch(begin_kernel, grid(blocks_for(s.count, threads)), dim3(threads), 0, s);
}

template <class T>
void end(const EndStep<T>& s) {
  launch(end_kernel<T>, grid(1), dim3(threads), 0, s);
}

template <class T>
void norm(const Norm<T>& s) {
  const int64_t pieces = norm_blocks(s.size);
  launch(squares_kernel<T>, grid(pieces), dim3(threads), 0, s.vector, s.size, s.partials);
  launch(norm_kernel, grid(1), dim3(threads), 0, s.partials, pieces, s.result);
}

template <class T>
void clip(T* vector, int64_t size, double limit, const double* norm) {
  launch(clip_kernel<T>, grid(blocks_for(size, threads)), dim3(threads), 0, vector, size, limit,
         norm);
}

}  // namespace

// The runtime uses it to check that the library has code for the GPU.
extern const void* const any_kernel;
const void* const any_kernel = reinterpret_cast<const void*>(&begin_kernel);

extern const TrainingStepKernels training_step_table;
const TrainingStepKernels training_step_table = {
    begin, end<float>, end<double>, norm<float>, norm<double>, clip<float>, clip<double>};

}  // namespace chainrule::cuda
