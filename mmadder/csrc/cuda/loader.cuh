// Fetches the operands of a tile into shared memory.
#pragma once

#include "tile.cuh"

namespace mmadder {
namespace cuda {

template <typename T>
__device__ __forceinline__ const T* add_bytes(const T* pointer, int64_t n) {
  return reinterpret_cast<const T*>(
      reinterpret_cast<const char*>(pointer) + n);
}

// Moves tiles of packed weights and gathered pixels into shared memory, two
// buffers in turn. Each thread fetches one pixel at depths first_depth,
// first_depth + kStep, ... WHOLE_TAPS: kDepth divides the channels, so that a
// tile lies within one tap.
template <typename T, typename Shared, typename Tile, bool WHOLE_TAPS>
struct Loader {
  static constexpr int D = Tile::kDepth, R = Tile::kRows, P = Tile::kPixels;
  static constexpr int kThreads = Tile::kThreads;
  static constexpr int kStep = kThreads / P, kFetched = D / kStep;
  static constexpr int C = kChunk<Shared>, kChunksAcross = R / C;
  static constexpr int kChunks = D * kChunksAcross;
  static constexpr int kFetchedChunks = (kChunks + kThreads - 1) / kThreads;
  static_assert(
      kThreads % P == 0 && D % kStep == 0 && kThreads % kChunksAcross == 0,
      "threads share the fetching evenly");
  // cp.async moves 4 bytes or more and does not convert.
  static constexpr bool kAsync =
      WHOLE_TAPS && is_same<T, float> && is_same<Shared, float>;

  // Rows of weights, and depths of pixels, between two fetches of a thread.
  // In bytes and from the host, they cost the main loop no register.
  static constexpr int kWeightStep =
      kThreads / kChunksAcross < D ? kThreads / kChunksAcross : D;
  static Strides byte_strides(unsigned pitch, unsigned plane) {
    return {(int64_t)kWeightStep * pitch * (int64_t)sizeof(Shared),
            (int64_t)kStep * plane * (int64_t)sizeof(T)};
  }

  const Window& window;
  const Strides& strides;
  Shared* const rows;    // (2, D, R) in shared memory
  Shared* const pixels;  // (2, D, P) in shared memory
  const int thread;
  int row, col;          // what the tap of the next fetch meets
  const T* source;       // it, at this thread's first depth
  unsigned met;          // bit per coming tap: it lies inside of the image
  const Shared* weight;
  int channel, i, j;     // of the next fetch; tap (i, j)
  Vector<Shared, C> fetched_rows[kFetchedChunks];
  Shared fetched[kFetched];

  __device__ __forceinline__ Loader(
      const Window& window, const Strides& strides, Shared* rows,
      Shared* pixels, int thread)
      : window(window),
        strides(strides),
        rows(rows),
        pixels(pixels),
        thread(thread) {}

  __device__ __forceinline__ int pixel() const { return thread % P; }
  __device__ __forceinline__ int first_depth() const { return thread / P; }

  // packed: this group's and class's weights at the block's first row; image:
  // this pixel's, this group's channels; (row0, col0): what tap (0, 0) meets.
  __device__ __forceinline__ void start(
      const Shared* packed, unsigned pitch, const T* image, int row0, int col0,
      int first_tile) {
    weight = packed + thread % kChunksAcross * C +
        ((int64_t)first_tile * D + thread / kChunksAcross) * pitch;
    const int k = first_tile * D + (WHOLE_TAPS ? 0 : first_depth());
    const int tap = k / window.channels;
    channel = k - tap * window.channels;
    i = tap / window.taps_w;
    j = tap - i * window.taps_w;
    row = row0 + i * window.row_step;
    col = col0 + j * window.col_step;
    if (WHOLE_TAPS)
      met = taps_met(row0, col0) >> tap;
    source = image +
        (int64_t)(channel + (WHOLE_TAPS ? first_depth() : 0)) * window.plane +
        (int64_t)row * window.cols + col;
  }

  // Called for every tile, the one beyond the last too, whose values nobody
  // uses: under a condition ptxas sinks the loads below the arithmetic. Packed
  // weights end in a spare tile for it.
  __device__ __forceinline__ void fetch(int buffer) {
    if (WHOLE_TAPS && channel >= window.channels) {
      next_tap();
      met >>= 1;
    }
    MMADDER_UNROLL for (int q = 0; q < kFetchedChunks; ++q) {
      if (kChunks % kThreads == 0 || thread + q * kThreads < kChunks) {
        if constexpr (kAsync)
          __pipeline_memcpy_async(row_chunk(buffer, q), weight, 16);
        else
          fetched_rows[q] =
              *reinterpret_cast<const Vector<Shared, C>*>(weight);
      }
      weight = add_bytes(weight, strides.weight);
    }
    if constexpr (WHOLE_TAPS)
      fetch_one_tap(buffer);
    else
      fetch_any_taps();
  }

  // This thread's part of a tile of pixels, before which there was a barrier.
  __device__ __forceinline__ float stored_sum(int buffer) const {
    float sum = 0.f;
    MMADDER_UNROLL for (int q = 0; q < kFetched; ++q)
      sum += *pixel_slot(buffer, q);
    return sum;
  }

  // Makes the fetched tile visible after the next barrier.
  __device__ __forceinline__ void store(int buffer) {
    if constexpr (kAsync) {
      __pipeline_wait_prior(0);
    } else {
      MMADDER_UNROLL for (int q = 0; q < kFetchedChunks; ++q)
        if (kChunks % kThreads == 0 || thread + q * kThreads < kChunks)
          *row_chunk(buffer, q) = fetched_rows[q];
      MMADDER_UNROLL for (int q = 0; q < kFetched; ++q)
        *pixel_slot(buffer, q) = fetched[q];
    }
  }

 private:
  __device__ __forceinline__ Vector<Shared, C>* row_chunk(
      int buffer, int q) const {
    return reinterpret_cast<Vector<Shared, C>*>(
        rows + buffer * D * R + (thread + q * kThreads) * C);
  }
  __device__ __forceinline__ Shared* pixel_slot(int buffer, int q) const {
    return pixels + buffer * D * P + thread + q * kThreads;
  }
  // To the same channel, less all channels, of the next tap.
  __device__ __forceinline__ void next_tap() {
    channel -= window.channels;
    col += window.col_step;
    source += window.tap_jump;
    if (++j >= window.taps_w) {
      j = 0;
      ++i;
      col -= window.taps_w * window.col_step;
      row += window.row_step;
      source += window.row_jump;
    }
  }
  __device__ __forceinline__ bool inside(int row, int col) const {
    return (unsigned)row < (unsigned)window.rows &&
        (unsigned)col < (unsigned)window.cols;
  }
  __device__ __forceinline__ unsigned taps_met(int row0, int col0) const {
    unsigned bits = 0, bit = 1;
    for (int i = 0; i < window.taps_h; ++i)
      for (int j = 0; j < window.taps_w; ++j, bit <<= 1)
        if (inside(row0 + i * window.row_step, col0 + j * window.col_step))
          bits |= bit;
    return bits;
  }
  __device__ __forceinline__ void fetch_one_tap(int buffer) {
    MMADDER_UNROLL for (int q = 0; q < kFetched; ++q) {
      if constexpr (kAsync)
        __pipeline_memcpy_async(
            pixel_slot(buffer, q), source, 4, met & 1 ? 0 : 4);
      else
        fetched[q] = convert<Shared>(met & 1 ? *source : convert<T>(0.f));
      source = add_bytes(source, strides.pixel);
    }
    channel += D;
    if constexpr (kAsync)
      __pipeline_commit();
  }
  __device__ __forceinline__ void fetch_any_taps() {
    MMADDER_UNROLL for (int q = 0; q < kFetched; ++q) {
      const bool met = i < window.taps_h && inside(row, col);
      fetched[q] = convert<Shared>(met ? *source : convert<T>(0.f));
      channel += kStep;
      source = add_bytes(source, strides.pixel);
      while (channel >= window.channels)
        next_tap();
    }
  }
};

}  // namespace cuda
}  // namespace mmadder
