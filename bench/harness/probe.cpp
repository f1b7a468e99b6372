// What this machine can do at most: fused multiply-adds on registers, copies of memory, and how
// long a cache line takes from one thread to another and back.
//
// Compiled when first used, by the system's compiler, for one vector width (PROBE_BYTES). The
// kernels are measured against this and not against one of their own products, which would flatter
// them.
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

// 12 independent sums: latency 4 times 2 units needs 8, and SSE2 and AVX2 have 16 registers in all.
constexpr int sums = 12;
constexpr int lanes = PROBE_BYTES / 4;

float multiply_add(int64_t iterations) {
  Vector sum[sums], x = Vector{} + 0.999f, y = Vector{} + 1e-3f;
  // Opaque to the compiler, which would otherwise know the result.
  asm volatile("" : "+m"(x), "+m"(y));
#pragma GCC unroll 12
  for (int s = 0; s < sums; ++s) sum[s] = y + static_cast<float>(s);
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 12
    for (int s = 0; s < sums; ++s) sum[s] = sum[s] * x + y;
    // Without it the compiler may interchange the loops and keep one chain, bound by latency.
#if defined(__x86_64__)
#pragma GCC unroll 12
    for (int s = 0; s < sums; ++s) asm volatile("" : "+x"(sum[s]));
#endif
  }
  // Unrolled: an index that varies would put the sums into memory, in the loop above too.
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

// Each thread copies its part, `repeats` times.
void probe_copy(int threads, char* to, const char* from, int64_t bytes, int64_t repeats) {
  const int64_t part = bytes / threads / 64 * 64;
  on_threads(threads, [=](int t) {
    for (int64_t r = 0; r < repeats; ++r) {
      memcpy(to + t * part, from + t * part, static_cast<size_t>(part));
      asm volatile("" ::: "memory");
    }
  });
}

// Two threads hand a cache line to each other.
void probe_crossing(int64_t rounds) {
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
