#include "packed_codes.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace mmadder::cpu {

void transpose_codes(
    const uint8_t (*rows)[kBlock], int64_t pixels, uint8_t* const* cells) {
#if defined(__SSE2__)
  __m128i a[kBlock], b[kBlock];
  for (int i = 0; i < kBlock; ++i)
    a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i]));
  const auto interleave = [](const __m128i* in, __m128i* out) {
    for (int i = 0; i < kBlock / 2; ++i) {
      out[2 * i] = _mm_unpacklo_epi8(in[i], in[i + kBlock / 2]);
      out[2 * i + 1] = _mm_unpackhi_epi8(in[i], in[i + kBlock / 2]);
    }
  };
  interleave(a, b), interleave(b, a), interleave(a, b), interleave(b, a);
  for (int64_t p = 0; p < pixels; ++p)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(cells[p]), a[p]);
#else
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < kBlock; ++c)
      cells[p][c] = rows[c][p];
#endif
}

void PackedCodes::pack(const uint8_t* weight, uint8_t* packed) const {
  std::memset(packed, 0, size());
  const int64_t outputs = g_.out_channels_per_group();
  at::parallel_for(0, g_.out_channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t oc = begin; oc < end; ++oc) {
      const int64_t o = oc % outputs;
      pack_filter(
          weight + oc * g_.in_channels_per_group() * g_.taps(),
          packed + o % width_ * kEight +
              (oc / outputs * out_blocks() + o / width_) * block_size());
    }
  });
}

// One filter, (in_channels, taps), to its place among the outputs.
void PackedCodes::pack_filter(const uint8_t* filter, uint8_t* out) const {
  const int64_t channels = g_.in_channels_per_group(), taps = g_.taps();
  for (int64_t e = 0; e < eights_; ++e) {
    const int64_t block = e * kEight / kBlockBytes;
    const int64_t used = std::min<int64_t>(channels - e * kEight, kEight);
    const int64_t eights = num_eights(channels, block);
    uint8_t* target = out +
        (block * kBlockBytes * taps + e % (kBlockBytes / kEight) * kEight) *
            width_;
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t k = 0; k < used; ++k)
        target[t * eights * width_ * kEight + k] =
            filter[(e * kEight + k) * taps + t];
  }
}

}  // namespace mmadder::cpu
