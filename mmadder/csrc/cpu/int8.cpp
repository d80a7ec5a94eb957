// 8-bit forward: sums of |x - w| over codes that share one scale, so that the
// sums are distances. Lanes are output channels of eight bytes each; the
// structure is the float32 forward's, with 64 channels in a block.
#include <algorithm>
#include <cmath>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "drivers.h"
#include "packing.h"

namespace mmadder::cpu {
namespace {

constexpr int64_t kChannels = kBlockBytes;  // in a block
constexpr int64_t kEight = 8;

// Eights of channels in a block that count.
int64_t num_eights(int64_t channels, int64_t block) {
  return ceil_div(
      std::min<int64_t>(channels - block * kChannels, kChannels), kEight);
}

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

// rows[channel][16] to cells of kBlockBytes: cell[pixel][channel], up to 16.
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

// ---------------------------------------------------------------- weights --

// Per group and block of output channels: [input
// block][tap][eight][output][8].
class PackedCodes {
 public:
  PackedCodes(const Conv2dGeometry& g, const Kernels& kernels)
      : g_(g),
        width_(kMaxVectors * kernels.byte_outputs),
        eights_(ceil_div(g.in_channels_per_group(), kEight)) {}

  int64_t size() const { return g_.groups * out_blocks() * block_size(); }
  int64_t width() const { return width_; }
  int64_t out_blocks() const {
    return ceil_div(g_.out_channels_per_group(), width_);
  }
  void attach(const uint8_t* data) { data_ = data; }
  const uint8_t* block(
      int64_t group, int64_t out_block, int64_t in_block) const {
    return data_ + (group * out_blocks() + out_block) * block_size() +
        in_block * kChannels * g_.taps() * width_;
  }

  void pack(const uint8_t* weight, uint8_t* packed) const {
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

 private:
  int64_t block_size() const { return eights_ * kEight * g_.taps() * width_; }

  // One filter, (in_channels, taps), to its place among the outputs.
  void pack_filter(const uint8_t* filter, uint8_t* out) const {
    const int64_t channels = g_.in_channels_per_group(), taps = g_.taps();
    for (int64_t e = 0; e < eights_; ++e) {
      const int64_t block = e * kEight / kChannels;
      const int64_t used = std::min<int64_t>(channels - e * kEight, kEight);
      const int64_t eights = num_eights(channels, block);
      uint8_t* target = out +
          (block * kChannels * taps + e % (kChannels / kEight) * kEight) *
              width_;
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t k = 0; k < used; ++k)
          target[t * eights * width_ * kEight + k] =
              filter[(e * kEight + k) * taps + t];
    }
  }

  const Conv2dGeometry& g_;
  const int64_t width_, eights_;
  const uint8_t* data_ = nullptr;
};

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
    const int64_t blocks = ceil_div(channels, kChannels);
    region_ = seen_region(g, band);
    image_ = 4 * packed_floats(region_, blocks);
    packed_.reserve(band.images * image_ / 4);
    for (int64_t n = 0; n < band.images; ++n)
      pack_image(
          conv.input +
              ((band.n + n) * g.in_channels + task.group * channels) * g.in_h *
                  g.in_w,
          channels, g.in_h, g.in_w, conv.codes, region_, packed(n));
    find_steps(
        g, region_, blocks, region_.pixels() * kBlockBytes, kBlockBytes,
        [&](int64_t b) { return num_eights(channels, b); }, steps_);
    const bool center = conv.epilogue.center;
    const int64_t block = band.positions() * conv.weight.width();
    sums_.reserve(block * (center ? conv.weight.out_blocks() : 1));
    for (int64_t ob = task.first_block; ob < task.last_block; ++ob) {
      int32_t* sums = this->sums() + (center ? ob * block : 0);
      add_all(conv, task, ob, sums);
      if (!center)
        store(conv, task, ob, sums);
    }
    if (!center)
      return;
    find_totals(conv, band);
    for (int64_t ob = 0; ob < conv.weight.out_blocks(); ++ob)
      store(conv, task, ob, this->sums() + ob * block);
  }

 private:
  void add_all(const CodeConvolution<Input>& conv, const Task& task,
               int64_t out_block, int32_t* first_sum) {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t blocks = ceil_div(g.in_channels_per_group(), kChannels);
    const int64_t chunk =
        chunk_blocks(kChannels * g.taps() * conv.weight.width());
    const int64_t tiles = ceil_div(band.columns, conv.kernels.byte_tile);
    for (int64_t b = 0; b < blocks; b += chunk) {
      const Step* steps = steps_.data() + b * g.taps();
      const int64_t num_steps = (std::min(b + chunk, blocks) - b) * g.taps();
      const uint8_t* w = conv.weight.block(task.group, out_block, b);
      int32_t* sums = first_sum;
      for (int64_t n = 0; n < band.images; ++n)
        for (int64_t oh = 0; oh < band.rows; ++oh) {
          const uint8_t* row =
              packed(n) + region_.pixel(oh * g.stride_h, 0) * kBlockBytes;
          for (int64_t t = 0; t < tiles; ++t) {
            const int64_t ow = t * band.columns / tiles;
            const int64_t tile = (t + 1) * band.columns / tiles - ow;
            conv.kernels.l1_distance_u8[tile](
                row + ow * kBlockBytes, steps, num_steps, w, b > 0, sums);
            sums += tile * conv.weight.width();
          }
        }
    }
  }

  // The sum over the filters at each position, of all blocks' sums.
  void find_totals(const CodeConvolution<Input>& conv, const Band& band) {
    const int64_t positions = band.positions(), width = conv.weight.width();
    const int64_t outputs = conv.g.out_channels_per_group();
    totals_.assign(positions, 0);
    for (int64_t ob = 0; ob < conv.weight.out_blocks(); ++ob) {
      const int64_t used = std::min(width, outputs - ob * width);
      const int32_t* sums = this->sums() + ob * positions * width;
      for (int64_t p = 0; p < positions; ++p)
        for (int64_t l = 0; l < used; ++l)
          totals_[p] += sums[p * width + l];
    }
  }

  // Sums become floats, exact up to 2^24, and go through the epilogue. With
  // center they are C times as large less the total, both exact integers.
  void store(const CodeConvolution<Input>& conv, const Task& task,
             int64_t out_block, const int32_t* block_sums) {
    const auto& g = conv.g;
    const int64_t width = conv.weight.width();
    const int64_t outputs = g.out_channels_per_group();
    const int64_t used = std::min(width, outputs - out_block * width);
    const int64_t plane = g.out_h * g.out_w;
    const int64_t oc = task.group * outputs + out_block * width;
    const bool center = conv.epilogue.center;
    const int32_t times = center ? static_cast<int32_t>(outputs) : 1;
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
              const int32_t total = center ? totals_[position + p + i] : 0;
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

  uint8_t* packed(int64_t n) {
    return reinterpret_cast<uint8_t*>(packed_.get()) + n * image_;
  }
  int32_t* sums() { return reinterpret_cast<int32_t*>(sums_.get()); }

  Region region_{};
  int64_t image_ = 0;  // bytes of a packed image
  std::vector<Step> steps_;
  Buffer packed_, sums_;
  std::vector<int32_t> totals_;
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
