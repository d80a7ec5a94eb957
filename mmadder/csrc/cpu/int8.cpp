// 8-bit forward: sums of |x - w| over codes that share one scale, so that the
// sums are distances. Lanes are output channels of eight bytes each; the
// structure is the float32 forward's, with 64 channels in a block.
#include <algorithm>
#include <cmath>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "code_sums.h"
#include "drivers.h"

namespace mmadder::cpu {
namespace {

constexpr int64_t kChannels = kBlockBytes;  // in a block

// ---------------------------------------------------------------- packing --

// 16 codes of a row; a code stays one.
void to_codes(const uint8_t* in, const Codes&, int64_t count, uint8_t* out) {
  std::memcpy(out, in, count);
}

// round(x / scale) + zero_point, half to even, within 0 and 255.
void to_codes(
    const float* in, const Codes& codes, int64_t count, uint8_t* out) {
  const float inverse = 1.f / codes.scale;
  int64_t i = 0;
#if defined(__SSE2__)
  const auto scale = _mm_set1_ps(inverse);
  const auto zero_point = _mm_set1_epi16(static_cast<short>(codes.zero_point));
  const auto low = _mm_set1_ps(-512.f), high = _mm_set1_ps(512.f);
  const auto round = [&](int64_t at) {
    const auto scaled = _mm_mul_ps(_mm_loadu_ps(in + at), scale);
    return _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(scaled, low), high));
  };
  if (count == kBlock) {
    const auto a = _mm_packs_epi32(round(0), round(4));
    const auto b = _mm_packs_epi32(round(8), round(12));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out),
        _mm_packus_epi16(
            _mm_add_epi16(a, zero_point), _mm_add_epi16(b, zero_point)));
    i = kBlock;
  }
#endif
  for (; i < count; ++i) {
    const float scaled = in[i] * inverse;
    const float bounded = scaled > -512.f ? std::min(scaled, 512.f) : -512.f;
    out[i] = static_cast<uint8_t>(std::clamp(
        static_cast<int>(std::nearbyint(bounded)) + codes.zero_point, 0, 255));
  }
}

// Packs a region of codes to [block][pixel][64]. Borders are the code of
// zero; channels that are not there are 0, as in the weights.
template <typename Input>
void pack_image(
    const Input* image, int64_t channels, int64_t height, int64_t width,
    const Codes& codes, const Region& region, uint8_t* packed) {
  const int64_t first = std::clamp<int64_t>(-region.column, 0, region.columns);
  const int64_t last =
      std::clamp<int64_t>(width - region.column, first, region.columns);
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t used = std::min<int64_t>(channels - c0, kBlock);
    uint8_t* out = packed + c0 / kChannels * region.pixels() * kBlockBytes +
        c0 % kChannels;
    uint8_t border[kBlock] = {};
    std::fill(border, border + used, static_cast<uint8_t>(codes.zero_point));
    for (int64_t r = 0; r < region.rows; ++r) {
      const auto cell = [&](int64_t c) {
        return out + region.pixel(r, c) * kBlockBytes;
      };
      const int64_t row = region.row + r;
      const bool inside = row >= 0 && row < height;
      for (int64_t c = 0; c < (inside ? first : region.columns); ++c)
        std::memcpy(cell(c), border, kBlock);
      if (!inside)
        continue;
      for (int64_t c = last; c < region.columns; ++c)
        std::memcpy(cell(c), border, kBlock);
      const Input* in = image + (c0 * height + row) * width + region.column;
      for (int64_t c = first; c < last; c += kBlock) {
        const int64_t count = std::min<int64_t>(last - c, kBlock);
        uint8_t rows[kBlock][kBlock] = {};
        uint8_t* cells[kBlock];
        for (int64_t i = 0; i < used; ++i)
          to_codes(in + i * height * width + c, codes, count, rows[i]);
        for (int64_t i = 0; i < count; ++i)
          cells[i] = cell(c + i);
        transpose_codes(rows, count, cells);
      }
    }
    // The cell's other channels, which no pass of this loop writes.
    if (channels - c0 <= kBlock)
      for (int64_t c = c0 % kChannels + kBlock; c < kChannels; c += kBlock)
        for (int64_t p = 0; p < region.pixels(); ++p)
          std::memset(out - c0 % kChannels + p * kBlockBytes + c, 0, kBlock);
  }
}

// ------------------------------------------------------------------ tasks --

// What all threads share.
template <typename Input>
struct CodeConvolution {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const Input* input;
  const PackedCodes& weight;
  const Codes& codes;
  const Epilogue& epilogue;
  float* output;
};

// One thread's buffers and the task that it is at.
template <typename Input>
class CodeWorker {
 public:
  void run(const CodeConvolution<Input>& conv, const Task& task) {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t channels = g.in_channels_per_group();
    const Region region = seen_region(g, band);
    const int64_t image = 4 * packed_floats(region, num_code_blocks(channels));
    auto* packed =
        reinterpret_cast<uint8_t*>(packed_.reserve(band.images * image / 4));
    for (int64_t n = 0; n < band.images; ++n)
      pack_image(
          conv.input +
              ((band.n + n) * g.in_channels + task.group * channels) * g.in_h *
                  g.in_w,
          channels, g.in_h, g.in_w, conv.codes, region, packed + n * image);
    sums_.for_each_block(
        {g,
         conv.kernels,
         conv.weight,
         band,
         task.group,
         {packed, image, region.pixels() * kBlockBytes, region, 1}},
        task, conv.epilogue.center,
        [&](int64_t ob, const int32_t* sums, const int32_t* totals) {
          store(conv, task, ob, sums, totals);
        });
  }

 private:
  // Sums become floats, exact up to 2^24, and go through the epilogue. With
  // center they are C times as large less the total, both exact integers.
  void store(
      const CodeConvolution<Input>& conv, const Task& task, int64_t out_block,
      const int32_t* block_sums, const int32_t* totals) const {
    const auto& g = conv.g;
    const int64_t width = conv.weight.width();
    const int64_t outputs = g.out_channels_per_group();
    const int64_t used = std::min(width, outputs - out_block * width);
    const int64_t plane = g.out_h * g.out_w;
    const int64_t oc = task.group * outputs + out_block * width;
    const int32_t times = totals ? static_cast<int32_t>(outputs) : 1;
    const float factor = -conv.codes.scale / static_cast<float>(times);
    float distances[kBlock * kMaxVectors * kEight];
    for_each_run(
        task.band, g.out_w,
        [&](int64_t position, int64_t run, int64_t n, int64_t oh) {
          const int64_t out = (n * g.out_channels + oc) * plane +
              oh * g.out_w + task.band.column;
          for (int64_t p = 0; p < run; p += kBlock) {
            const int64_t positions = std::min<int64_t>(run - p, kBlock);
            const int32_t* sums = block_sums + (position + p) * width;
            for (int64_t i = 0; i < positions; ++i) {
              const int32_t total = totals ? totals[position + p + i] : 0;
              for (int64_t k = i * width; k < (i + 1) * width; ++k)
                distances[k] = static_cast<float>(times * sums[k] - total);
            }
            Epilogue e = conv.epilogue;
            e.mean += oc, e.scale += oc, e.bias += oc;
            if (e.residual)
              e.residual += out + p;
            conv.kernels.store(
                distances, width, positions, used, factor, nullptr, nullptr, e,
                conv.output + out + p, plane);
          }
        });
  }

  Buffer packed_;
  CodeSums sums_;
};

}  // namespace

int64_t packed_codes_size(const Conv2dGeometry& g) {
  return PackedCodes(g, kernels()).size();
}

void pack_codes(
    const Conv2dGeometry& g, const uint8_t* weight, uint8_t* packed) {
  PackedCodes(g, kernels()).pack(weight, packed);
}

template <typename Input>
void adder_conv2d_u8(
    const Conv2dGeometry& geometry, const Input* input,
    const uint8_t* packed_weight, const Codes& codes, const Epilogue& epilogue,
    float* output) {
  const Images dense{nullptr, 0, 0, geometry.in_w, 1};
  const Conv2dGeometry g = flattened(geometry, dense);
  const Kernels& kernels = cpu::kernels();
  PackedCodes packed(g, kernels);
  packed.attach(packed_weight);
  const CodeConvolution<Input> conv{
      g, kernels, input, packed, codes, epilogue, output};
  std::deque<CodeWorker<Input>> workers;
  for_each_task(
      workers, g.batch, g.groups, packed.out_blocks(), epilogue.center,
      g.out_h, g.out_w, [&](CodeWorker<Input>& worker, const Task& task) {
        worker.run(conv, task);
      });
}

template void adder_conv2d_u8(
    const Conv2dGeometry&, const uint8_t*, const uint8_t*, const Codes&,
    const Epilogue&, float*);
template void adder_conv2d_u8(
    const Conv2dGeometry&, const float*, const uint8_t*, const Codes&,
    const Epilogue&, float*);

}  // namespace mmadder::cpu
