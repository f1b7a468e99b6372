// Kernels of a training step on the GPU beside the operations. With them an epoch needs no
// host-device transfers between its steps. Plain C++ for the bindings; the kernels are in
// training_step.cu.
#pragma once

#include <cstdint>

namespace chainrule::cuda {

// Starts step `*position` of an epoch: selects the batch, the learning rate and the dropout
// counter.
struct BeginStep {
  const int64_t* order;        // instance indices in the epoch's order, `batch` per step
  const double* rates;         // learning rate per step
  const uint64_t* first_pass;  // dropout counter of the epoch's first step
  const uint64_t* steps_done;  // optimizer steps before the epoch
  const int64_t* classes;      // of all instances; or null
  const int64_t* position;     // number of the step
  int64_t batch, count;        // instances per full step, and in this step
  int64_t* indices;            // out: (count)
  int64_t* batch_classes;      // out: (count); or null
  double* rate;                // out: learning rate of this step
  uint64_t* pass;              // out: dropout counter of this step
  uint64_t* step_number;       // out: optimizer steps, this one included
};

// Runs after the loss: stores the step's loss sum and number of correct predictions, and increments
// the step number. After a loss sum that is not finite, the learning rate is NaN for the rest of
// the epoch, so that `sgd` and `adam` change nothing.
template <class T>
struct EndStep {
  const T* losses;         // (count)
  const T* output;         // (count, columns)
  const int64_t* classes;  // (count); or null
  int64_t count, columns;
  double* sums;      // per step of the epoch
  int64_t* correct;  // per step of the epoch
  double* rate;
  int64_t* stopped;
  int64_t* position;
};

// Euclidean norm of a vector. The order of the sum depends only on the length. The result is finite
// whenever the norm is, even if squares of elements overflow.
template <class T>
struct Norm {
  const T* vector;
  int64_t size;
  double* partials;  // norm_partials_size(size)
  double* result;
};

constexpr int64_t norm_elements_per_block = 16384;
constexpr int64_t norm_blocks(int64_t size) {
  return (size + norm_elements_per_block - 1) / norm_elements_per_block;
}
constexpr int64_t norm_partials_size(int64_t size) { return 2 * norm_blocks(size); }

struct TrainingStepKernels {
  void (*begin)(const BeginStep&);
  void (*end_f32)(const EndStep<float>&);
  void (*end_f64)(const EndStep<double>&);
  void (*norm_f32)(const Norm<float>&);
  void (*norm_f64)(const Norm<double>&);
  // Scales the vector to the norm `limit` if its norm, `*norm`, is larger and finite.
  void (*clip_f32)(float* vector, int64_t size, double limit, const double* norm);
  void (*clip_f64)(double* vector, int64_t size, double limit, const double* norm);
};

}  // namespace chainrule::cuda
