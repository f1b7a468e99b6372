// Warp-wide matrix multiply-accumulate on tensor cores, mma.m16n8k8 in TF32: c (16, 8) += a (16, 8)
// · b (8, 8). With row = lane / 4 and column = lane % 4, each lane holds
//
//    a   (row, column), (row + 8, column), (row, column + 4), (row + 8, column + 4)
//    b   (column, row), (column + 4, row)
//    c   (row, 2 column), (row, 2 column + 1), (row + 8, 2 column), (row + 8, 2 column + 1)
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

#ifdef __CUDACC__
// Rounds to the nearest TF32 value (11 significant bits), ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

__device__ __forceinline__ void multiply_tf32(const uint32_t (&a)[4], const uint32_t (&b)[2],
                                              float& c0, float& c1, float& c2, float& c3) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
inline uint32_t to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
}

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void multiply_tf32(const uint32_t (&a)[4], const uint32_t (&b)[2], float& c0, float& c1,
                          float& c2, float& c3) {
  __shared__ float left[32][16][8], right[32][8][8];  // per warp of the block
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int row = lane / 4, column = lane % 4;
  for (int i = 0; i < 4; ++i) left[warp][row + i % 2 * 8][column + i / 2 * 4] = from_bits(a[i]);
  for (int i = 0; i < 2; ++i) right[warp][column + i * 4][row] = from_bits(b[i]);
  __syncwarp();
  float* const c[4] = {&c0, &c1, &c2, &c3};
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 8; ++k) {
      *c[i] += left[warp][row + i / 2 * 8][k] * right[warp][k][2 * column + i % 2];
    }
  }
  __syncwarp();
}
#endif

}  // namespace chainrule::cuda
