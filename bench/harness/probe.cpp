// Upper bounds of this machine: the rate of fused multiply-adds on registers, the rate of memory
// copies, and the round trip of a cache line between two threads.
//
// The system's compiler compiles this file on first use, for one vector size (PROBE_BYTES).
// Kernels are compared with this probe. A comparison with one of their own products would hide an
// inefficiency that all products share.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

#if PROBE_BYTES == 4
typedef float Vector;
float first(Vector v) { return v; }
#else
typedef float Vector __attribute__((vector_size(PROBE_BYTES)));
float first(Vector v) { return v[0]; }
#endif

// 12 independent sums. A latency of 4 cycles on 2 units requires 8; SSE2 and AVX2 have 16 registers.
constexpr int sums = 12;
constexpr int lanes = PROBE_BYTES / 4;

float multiply_add(int64_t iterations) {
  Vector sum[sums], x = Vector{} + 0.999f, y = Vector{} + 1e-3f;
  // Hides the values from the compiler, which could otherwise compute the result.
  asm volatile("" : "+m"(x), "+m"(y));
#pragma GCC unroll 12
  for (int s = 0; s < sums; ++s) sum[s] = y + static_cast<float>(s);
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 12
    for (int s = 0; s < sums; ++s) sum[s] = sum[s] * x + y;
    // Prevents an interchange of the loops, which would leave one dependency chain.
#if defined(__x86_64__)
#pragma GCC unroll 12
    for (int s = 0; s < sums; ++s) asm volatile("" : "+x"(sum[s]));
#endif
  }
  // Unrolled, because a variable index would move the sums to memory, also in the loop above.
  Vector total = sum[0];
#pragma GCC unroll 12
  for (int s = 1; s < sums; ++s) total = total + sum[s];
  return first(total);
}

template <typename Work>
void on_threads(int threads, Work work) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
  work(0);
  for (std::thread& other : others) other.join();
}

}  // namespace

extern "C" {

// Floating-point operations of one iteration on one thread.
int64_t probe_flops() { return 2 * sums * lanes; }

float probe_multiply_add(int threads, int64_t iterations) {
  std::vector<float> results(static_cast<size_t>(threads) * 16);
  on_threads(threads,
             [&](int t) { results[static_cast<size_t>(t) * 16] = multiply_add(iterations); });
  return results[0];
}

// Copies memory `repeats` times. Each thread copies its own part.
void probe_copy(int threads, char* to, const char* from, int64_t bytes, int64_t repeats) {
  const int64_t part = bytes / threads / 64 * 64;
  on_threads(threads, [=](int t) {
    for (int64_t r = 0; r < repeats; ++r) {
      memcpy(to + t * part, from + t * part, static_cast<size_t>(part));
      asm volatile("" ::: "memory");
    }
  });
}

// Two threads write to the same cache line alternately, `rounds` times each.
void probe_cache_line(int64_t rounds) {
  alignas(64) std::atomic<int64_t> turn{0};
  on_threads(2, [&](int t) {
    for (int64_t r = 0; r < rounds; ++r) {
      while (turn.load(std::memory_order_acquire) != 2 * r + t) {
      }
      turn.store(2 * r + t + 1, std::memory_order_release);
    }
  });
}
}
