// Stands in for the CUDA language, so that the kernels compile as C++ and run
// on a CPU. A block's threads are fibers that switch only at __syncthreads(),
// in an order that the caller chooses; blocks run one after another.
//
// What shows: wrong results, whatever the order. Shared memory that is read
// before it is written is NaN. cp.async copies when it is waited for, not
// before. Under -fsanitize=address, shared arrays have red zones. Under
// -fsanitize=thread every fiber is a thread that only barriers order, so a
// missing barrier is a data race. A barrier that some threads miss is an
// error. Not covered: ptxas, launch limits, warps, speed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define EMULATION_UNSEEN __attribute__((no_sanitize_thread, noinline))
#else
#define EMULATION_UNSEEN
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define MMADDER_UNROLL
#define MMADDER_NO_UNROLL
#define MMADDER_SHARED(T, name, n) \
  T* const name = emulation::shared<T>(__LINE__, n)
#define __syncthreads() emulation::barrier(__LINE__)
#define threadIdx emulation::thread_index()
#define blockIdx emulation::block_index
#define blockDim emulation::block_size
#define gridDim emulation::grid_size

namespace emulation {

struct Index {
  unsigned x;
};

enum class Order { kUp, kDown, kShuffled };

struct AsyncCopy {
  char* to;
  const char* from;
  size_t bytes, zeros;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done;
  int line;      // of the barrier it waits at
  int barriers;  // passed
  std::vector<std::vector<AsyncCopy>> copies;  // the last group is open
  void* tsan;
};

struct SharedArray {
  void* data;
  size_t bytes;
};

inline Index block_index, block_size, grid_size, current_thread;
inline ucontext_t scheduler;
inline std::deque<Fiber> fibers;  // live on from block to block
inline Fiber* current;
inline std::function<void()> body;
inline std::map<int, SharedArray> shared_arrays;  // by line of declaration
inline Order order = Order::kUp;
inline std::mt19937 random_order(1);

inline void fail(const char* message) {
  std::fprintf(stderr, "emulation: %s\n", message);
  std::exit(3);
}

// ------------------------------------------------ what happens before what --
// Tokens tell ThreadSanitizer. Those of barriers alternate: who leaves one
// must not see what faster fibers released at the next, or races would hide.

inline char at_start, at_end, at_allocation, at_barrier[2];

#if defined(__SANITIZE_THREAD__)
inline void* scheduler_tsan;
inline void acquire(char* token) { __tsan_acquire(token); }
inline void release(char* token) { __tsan_release(token); }
inline void create_tsan(Fiber& fiber) { fiber.tsan = __tsan_create_fiber(0); }
// Flag 1: the switch itself orders nothing.
#define EMULATION_SWITCH(fiber) __tsan_switch_to_fiber(fiber, 1)
#else
inline void* scheduler_tsan;
inline void acquire(char*) {}
inline void release(char*) {}
inline void create_tsan(Fiber&) {}
#define EMULATION_SWITCH(fiber) (void)(fiber)
#endif

// ------------------------------------------------------------ in a thread --

EMULATION_UNSEEN inline Fiber* self() { return current; }
EMULATION_UNSEEN inline Index thread_index() { return current_thread; }

EMULATION_UNSEEN inline void leave() {
  EMULATION_SWITCH(scheduler_tsan);
  swapcontext(&self()->context, &scheduler);
}

inline void barrier(int line) {
  Fiber* fiber = self();
  char* token = &at_barrier[fiber->barriers++ & 1];
  fiber->line = line;
  release(token);
  leave();
  acquire(token);
}

inline void run_threads() {  // one of each block
  for (;;) {
    acquire(&at_start);
    body();
    self()->done = true;
    release(&at_end);
    leave();
  }
}

template <typename T>
T* shared(int line, size_t n) {
  acquire(&at_allocation);
  SharedArray& array = shared_arrays[line];
  if (array.data == nullptr) {
    array.bytes = n * sizeof(T);
    array.data = std::aligned_alloc(16, (array.bytes + 15) / 16 * 16);
    std::memset(array.data, 0xFF, array.bytes);  // NaN in every type
  }
  T* const data = static_cast<T*>(array.data);
  release(&at_allocation);
  return data;
}

inline void copy_async(
    void* to, const void* from, size_t bytes, size_t zeros = 0) {
  if ((uintptr_t)to % bytes || (zeros < bytes && (uintptr_t)from % bytes))
    fail("misaligned cp.async");
  self()->copies.back().push_back(
      {static_cast<char*>(to), static_cast<const char*>(from), bytes, zeros});
}

inline void commit_async() { self()->copies.emplace_back(); }

inline void wait_async(size_t groups_left) {
  auto& groups = self()->copies;
  while (groups.size() > groups_left + 1) {
    for (const AsyncCopy& copy : groups.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes - copy.zeros);
      std::memset(copy.to + copy.bytes - copy.zeros, 0, copy.zeros);
    }
    groups.erase(groups.begin());
  }
}

// ---------------------------------------------------------------- a block --

inline void add_fiber() {
  fibers.emplace_back();
  Fiber& fiber = fibers.back();
  fiber.stack.resize(64 << 10);
  create_tsan(fiber);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_threads, 0);
}

EMULATION_UNSEEN inline void resume(Fiber& fiber) {
  EMULATION_SWITCH(fiber.tsan);
  swapcontext(&scheduler, &fiber.context);
}

// All threads up to their next barrier, or to the end: then true.
inline bool run_to_barrier(std::vector<int>& sequence) {
  if (order == Order::kShuffled)
    std::shuffle(sequence.begin(), sequence.end(), random_order);
  for (const int t : sequence) {
    current_thread = {(unsigned)t};
    current = &fibers[t];
    resume(fibers[t]);
  }
  acquire(&at_end);
  acquire(&at_barrier[0]);
  acquire(&at_barrier[1]);
  const Fiber& first = fibers[sequence[0]];
  for (const int t : sequence)
    if (fibers[t].done != first.done || fibers[t].line != first.line)
      fail("a barrier that not all threads reach");
  return first.done;
}

inline void run_block(int threads) {
#if defined(__SANITIZE_THREAD__)
  scheduler_tsan = __tsan_get_current_fiber();
#endif
  while ((int)fibers.size() < threads)
    add_fiber();
  std::vector<int> sequence(threads);
  for (int t = 0; t < threads; ++t) {
    sequence[t] = order == Order::kDown ? threads - 1 - t : t;
    fibers[t].done = false;
    fibers[t].line = fibers[t].barriers = 0;
    fibers[t].copies.assign(1, {});
  }
  release(&at_start);
  while (!run_to_barrier(sequence))
    release(&at_barrier[(fibers[0].barriers - 1) & 1]);  // all have arrived
  acquire(&at_allocation);
  for (const auto& array : shared_arrays)
    std::free(array.second.data);
  shared_arrays.clear();
}

struct Launcher {
  unsigned most = ~0u;  // of the blocks, only so many at the end run

  template <typename Kernel, typename... Arguments>
  void operator()(Kernel kernel, unsigned blocks, int threads,
                  Arguments... arguments) const {
    grid_size = {blocks};
    block_size = {(unsigned)threads};
    body = [&] { kernel(arguments...); };
    std::vector<unsigned> sequence;
    for (unsigned b = blocks - std::min(blocks, most); b < blocks; ++b)
      sequence.push_back(b);
    if (order == Order::kDown)
      std::reverse(sequence.begin(), sequence.end());
    if (order == Order::kShuffled)
      std::shuffle(sequence.begin(), sequence.end(), random_order);
    for (const unsigned b : sequence) {
      block_index = {b};
      run_block(threads);
    }
  }
};

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

}  // namespace emulation

#define __pipeline_memcpy_async emulation::copy_async
#define __pipeline_commit emulation::commit_async
#define __pipeline_wait_prior emulation::wait_async

// -------------------------------------------------------------- arithmetic --

inline float __saturatef(float v) {  // NaN becomes 0, as on a GPU
  return v > 0.f ? (v < 1.f ? v : 1.f) : 0.f;
}

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16;
  const uint32_t exponent = h.bits >> 10 & 31, mantissa = h.bits & 1023;
  if (exponent == 31)
    return emulation::from_bits(sign | 0x7f800000u | mantissa << 13);
  const float magnitude = exponent
      ? emulation::from_bits((exponent + 112) << 23 | mantissa << 13)
      : std::ldexp((float)mantissa, -24);
  return sign ? -magnitude : magnitude;
}

inline __half __float2half_rn(float f) {  // to nearest even
  const uint32_t bits = emulation::to_bits(f), sign = bits >> 16 & 0x8000u;
  const float magnitude = std::fabs(f);
  if (magnitude != magnitude)
    return {(uint16_t)(sign | 0x7e00u)};
  if (magnitude >= 65520.f)
    return {(uint16_t)(sign | 0x7c00u)};
  if (magnitude < 0x1p-14f)
    return {static_cast<uint16_t>(
        sign | (uint32_t)std::nearbyint(std::ldexp(magnitude, 24)))};
  const uint32_t rounded = (bits & 0x7fffffffu) + 0xfffu + (bits >> 13 & 1);
  return {(uint16_t)(sign | ((rounded >> 13) - (112u << 10)))};
}

inline float __bfloat162float(__nv_bfloat16 b) {
  return emulation::from_bits((uint32_t)b.bits << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float f) {  // to nearest even
  const uint32_t bits = emulation::to_bits(f);
  if (f != f)
    return {0x7fff};
  return {(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __half2half2(__half v) { return {v, v}; }
inline float __low2float(__half2 v) { return __half2float(v.x); }
inline float __high2float(__half2 v) { return __half2float(v.y); }
inline __half2 __hadd2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) + __half2float(b.x)),
          __float2half_rn(__half2float(a.y) + __half2float(b.y))};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) - __half2float(b.x)),
          __float2half_rn(__half2float(a.y) - __half2float(b.y))};
}
inline __half2 __habs2(__half2 v) {
  return {{(uint16_t)(v.x.bits & 0x7fff)}, {(uint16_t)(v.y.bits & 0x7fff)}};
}
