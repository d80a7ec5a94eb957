// Forward: lanes are output channels, one input value is broadcast to them.
//
// The image is cut into bands of output positions, the unit of threads. For a
// band the input is packed once with its zero border; then, per block of
// output channels, a scratch of [position][channel] sums collects one chunk of
// input channels after the other (a chunk's weights stay in the first-level
// cache, and short partial sums keep the rounding error small), and is
// transposed to the output. A sum's order depends on the geometry alone,
// never on bands, so results are the same for any number of threads.
#include <ATen/Parallel.h>

#include "drivers.h"
#include "packing.h"

namespace mmadder::cpu {
namespace {

constexpr int64_t kBandPositions = 1024;
constexpr int64_t kChunkBytes = 20 * 1024;  // packed weights of one chunk

// Weights of one group as [output block][input block][tap][4 * quads][lanes].
class PackedWeight {
 public:
  PackedWeight(const Conv2dGeometry& g, int64_t lanes)
      : lanes_(lanes),
        in_channels_(g.in_channels_per_group()),
        out_channels_(g.out_channels_per_group()),
        taps_(g.taps()),
        out_block_(ceil_div(in_channels_, kQuad) * kQuad * taps_ * lanes),
        data_(g.groups * out_blocks() * out_block_) {}

  int64_t out_blocks() const { return ceil_div(out_channels_, lanes_); }

  const float* block(int64_t group, int64_t out_block, int64_t in_block)
      const {
    return data_.get() + (group * out_blocks() + out_block) * out_block_ +
        in_block * kBlock * taps_ * lanes_;
  }

  // weight: (out_channels, in_channels, taps) of the whole convolution.
  void fill(const float* weight, int64_t groups) {
    const int64_t in_blocks = num_blocks(in_channels_);
    const int64_t blocks = groups * out_blocks() * in_blocks;
    at::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        fill_block(weight, i / in_blocks / out_blocks(),
                   i / in_blocks % out_blocks(), i % in_blocks);
    });
  }

 private:
  void fill_block(const float* weight, int64_t group, int64_t out_block,
                  int64_t in_block) {
    float* out = const_cast<float*>(block(group, out_block, in_block));
    const int64_t padded = num_quads(in_channels_, in_block) * kQuad;
    const int64_t channels =
        std::min<int64_t>(in_channels_ - in_block * kBlock, kBlock);
    const int64_t lanes =
        std::min(out_channels_ - out_block * lanes_, lanes_);
    if (channels < padded || lanes < lanes_)
      std::fill(out, out + taps_ * padded * lanes_, 0.f);
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t oc = group * out_channels_ + out_block * lanes_ + l;
      const float* in =
          weight + (oc * in_channels_ + in_block * kBlock) * taps_;
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t tap = 0; tap < taps_; ++tap)
          out[(tap * padded + c) * lanes_ + l] = in[c * taps_ + tap];
    }
  }

  const int64_t lanes_, in_channels_, out_channels_, taps_, out_block_;
  Buffer data_;
};

// One band of one group, packed, and the scratch of its sums.
class BandTask {
 public:
  BandTask(const Conv2dGeometry& g, const Kernels& kernels, const Band& band)
      : g_(g),
        kernels_(kernels),
        band_(band),
        region_{band.row * g.stride_h - g.pad_h,
                (band.rows - 1) * g.stride_h +
                    (g.kernel_h - 1) * g.dilation_h + 1,
                band.column * g.stride_w - g.pad_w,
                (band.columns - 1) * g.stride_w +
                    (g.kernel_w - 1) * g.dilation_w + 1},
        lanes_(kernels.lanes * kernels.vectors),
        image_(num_blocks(g.in_channels_per_group()) * region_.plane()),
        packed_(band.images * image_),
        sums_(band.positions() * lanes_) {
    const int64_t channels = g.in_channels_per_group();
    for (int64_t b = 0; b < num_blocks(channels); ++b)
      for (int64_t kh = 0; kh < g.kernel_h; ++kh)
        for (int64_t kw = 0; kw < g.kernel_w; ++kw)
          steps_.push_back(
              {b * region_.plane() +
                   (kh * g.dilation_h * region_.columns + kw * g.dilation_w) *
                       kBlock,
               num_quads(channels, b)});
  }

  void run(const float* input, const PackedWeight& weight, int64_t group,
           float* output) {
    const int64_t channels = g_.in_channels_per_group();
    for (int64_t n = 0; n < band_.images; ++n)
      pack_region(
          kernels_,
          input + ((band_.n + n) * g_.in_channels + group * channels) *
                  g_.in_h * g_.in_w,
          channels, g_.in_h, g_.in_w, region_, packed_.get() + n * image_);
    const int64_t in_blocks = num_blocks(channels);
    const int64_t block_bytes =
        kBlock * g_.taps() * lanes_ * static_cast<int64_t>(sizeof(float));
    const int64_t chunk = std::max<int64_t>(kChunkBytes / block_bytes, 1);
    for (int64_t ob = 0; ob < weight.out_blocks(); ++ob) {
      std::fill(sums_.get(), sums_.get() + band_.positions() * lanes_, 0.f);
      for (int64_t b = 0; b < in_blocks; b += chunk)
        add_chunk(b, std::min(b + chunk, in_blocks),
                  weight.block(group, ob, b));
      store(group, ob, output);
    }
  }

 private:
  // Adds input blocks [begin, end) to the sums of all positions.
  void add_chunk(int64_t begin, int64_t end, const float* weight) {
    const Step* steps = steps_.data() + begin * g_.taps();
    const int64_t num_steps = (end - begin) * g_.taps();
    const int64_t tiles = ceil_div(band_.columns, kernels_.forward_tile);
    const int64_t x_stride = g_.stride_w * kBlock;
    float* sums = sums_.get();
    for (int64_t n = 0; n < band_.images; ++n)
      for (int64_t oh = 0; oh < band_.rows; ++oh) {
        const float* row = packed_.get() + n * image_ +
            oh * g_.stride_h * region_.columns * kBlock;
        for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal width
          const int64_t ow = t * band_.columns / tiles;
          const int64_t width = (t + 1) * band_.columns / tiles - ow;
          kernels_.l1_distance[width](
              row + ow * x_stride, x_stride, steps, num_steps, weight, sums);
          sums += width * lanes_;
        }
      }
  }

  // Writes minus the sums of one block of output channels.
  void store(int64_t group, int64_t out_block, float* output) const {
    const int64_t channels = g_.out_channels_per_group();
    const int64_t plane = g_.out_h * g_.out_w;
    const int64_t first = out_block * lanes_;
    const int64_t used = std::min(channels - first, lanes_);
    const bool whole_rows = band_.columns == g_.out_w;
    const int64_t runs = band_.images * (whole_rows ? 1 : band_.rows);
    const int64_t run = band_.positions() / runs;  // contiguous in output
    for (int64_t i = 0; i < runs; ++i) {
      const int64_t n = band_.n + (whole_rows ? i : i / band_.rows);
      const int64_t oh = band_.row + (whole_rows ? 0 : i % band_.rows);
      const float* sums = sums_.get() + i * run * lanes_;
      float* out = output +
          (n * g_.out_channels + group * channels + first) * plane +
          oh * g_.out_w + band_.column;
      for (int64_t p = 0; p < run; p += kBlock)
        for (int64_t l = 0; l < used; l += kBlock)
          kernels_.transpose(
              sums + p * lanes_ + l, lanes_, out + l * plane + p, plane,
              std::min<int64_t>(run - p, kBlock),
              std::min<int64_t>(used - l, kBlock), -1.f);
    }
  }

  const Conv2dGeometry& g_;
  const Kernels& kernels_;
  const Band band_;
  const Region region_;
  const int64_t lanes_, image_;
  Buffer packed_, sums_;
  std::vector<Step> steps_;
};

}  // namespace

void adder_conv2d_f32(
    const Conv2dGeometry& geometry, const float* input, const float* weight,
    float* output) {
  const Conv2dGeometry g = flattened(geometry);
  const Kernels& kernels = cpu::kernels();
  PackedWeight packed(g, kernels.lanes * kernels.vectors);
  packed.fill(weight, g.groups);
  const auto bands = make_bands(
      g.batch, g.out_h, g.out_w,
      band_positions(g.batch * g.out_h * g.out_w, kBandPositions));
  const int64_t tasks = static_cast<int64_t>(bands.size()) * g.groups;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      BandTask(g, kernels, bands[i / g.groups])
          .run(input, packed, i % g.groups, output);
  });
}

}  // namespace mmadder::cpu
