// What a training step on the GPU does beside the operations, so that an epoch needs nothing from
// the host between its steps. Plain C++, as the bindings see it; the kernels stand in training.cu.
#pragma once

#include <cstdint>

namespace chainrule::cuda {

// The beginning of step `*position` of an epoch: its instances, and the numbers that change.
struct StepBegin {
  const int64_t* order;     // positions of the epoch's instances, `batch` of them a step
  const double* rates;      // the learning rate of each step
  const uint64_t* pass;     // the number of the epoch's first training pass
  const int64_t* classes;   // of all instances; or null
  const int64_t* position;  // the step's number
  int64_t batch, count;     // instances of a full step, and of this one
  int64_t* chosen;          // (count)
  int64_t* chosen_classes;  // (count); or null
  double* rate;
  uint64_t* this_pass;
};

// Behind the loss: its sum and the right answers of the step; and the next step's number. Once a
// sum was not finite, the learning rate is NaN for good, with which `sgd` leaves everything as it
// was.
template <class T>
struct StepEnd {
  const T* losses;         // (count)
  const T* output;         // (count, columns)
  const int64_t* classes;  // (count); or null
  int64_t count, columns;
  double* sums;    // of the epoch's steps
  int64_t* right;  // likewise
  double* rate;
  int64_t* stopped;
  int64_t* position;
};

// A vector's norm, summed in an order that depends on its length alone. Finite where it is, also
// where the squares of its elements are not.
template <class T>
struct Norm {
  const T* vector;
  int64_t size;
  double* parts;  // norm_parts(size)
  double* result;
};

constexpr int64_t norm_piece = 16384;  // elements that one block squares
constexpr int64_t norm_pieces(int64_t size) { return (size + norm_piece - 1) / norm_piece; }
constexpr int64_t norm_parts(int64_t size) { return 2 * norm_pieces(size); }

struct Training {
  void (*begin)(const StepBegin&);
  void (*end_f32)(const StepEnd<float>&);
  void (*end_f64)(const StepEnd<double>&);
  void (*norm_f32)(const Norm<float>&);
  void (*norm_f64)(const Norm<double>&);
  // The vector, scaled to the norm `limit` where its own, `*norm`, is larger and finite.
  void (*clip_f32)(float* vector, int64_t size, double limit, const double* norm);
  void (*clip_f64)(double* vector, int64_t size, double limit, const double* norm);
};

}  // namespace chainrule::cuda
