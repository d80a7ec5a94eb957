// Forward: lanes are output channels, one input value is broadcast to them.
//
// The image is cut into bands of output positions. For a band the input is
// packed once with its zero border; then, per block of output channels, a
// scratch of [position][channel] sums collects one chunk of input channels
// after the other (a chunk's weights stay in the first-level cache, and short
// partial sums keep the rounding error small), and goes through the epilogue
// to the output. A centered output needs the sums of all blocks at once. A
// sum's order depends on the geometry alone, never on bands,
// so results are the same for any number of threads.
#include <algorithm>
#include <atomic>

#include "drivers.h"
#include "packed_weight.h"
#include "packing.h"

namespace mmadder::cpu {
namespace {

// Shorter distances can be close to zero by chance, and gain little.
constexpr int64_t kFewestTermsOfMax = 16;

// What all threads share.
struct Convolution {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const Form form;
  const bool check;  // the accuracy of the max form
  const Images& input;
  const PackedWeight& weight;
  const Epilogue& epilogue;
  float* output;
};

// One thread's buffers and the task that it is at.
class ForwardWorker {
 public:
  // Returns false if the max form is too inaccurate, as far as looked at.
  bool run(const Convolution& conv, const Task& task) {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t channels = g.in_channels_per_group();
    region_ = seen_region(g, band);
    image_ = packed_floats(region_, num_blocks(channels));
    pack(conv, task);
    find_steps(
        g, region_, num_blocks(channels), kBlock,
        [&](int64_t b) { return padded_channels(channels, b) / kQuad; },
        steps_);
    if (conv.form == kMax)
      find_sums(conv, band);
    const auto& weight = conv.weight;
    const bool center = conv.epilogue.center;
    const int64_t block = band.positions() * weight.width();
    sums_.reserve(block * (center ? weight.out_blocks() : 1));
    for (int64_t ob = task.first_block; ob < task.last_block; ++ob) {
      float* sums = sums_.get() + (center ? ob * block : 0);
      for (int64_t chunk = 0; chunk < weight.chunks(); ++chunk)
        add_chunk(conv, task, ob, chunk, sums);
      if (!center && !store(conv, task, ob, sums))
        return false;
    }
    if (!center)
      return true;
    find_means(conv, band);
    for (int64_t ob = 0; ob < weight.out_blocks(); ++ob)
      if (!store(conv, task, ob, sums_.get() + ob * block))
        return false;
    return true;
  }

 private:
  void pack(const Convolution& conv, const Task& task) {
    const auto& g = conv.g;
    const auto& in = conv.input;
    const int64_t channels = g.in_channels_per_group();
    packed_.reserve(task.band.images * image_);
    for (int64_t n = 0; n < task.band.images; ++n)
      pack_region(
          conv.kernels,
          {in.data + (task.band.n + n) * in.batch_stride +
               task.group * channels * in.channel_stride,
           channels, g.in_h, g.in_w, in.channel_stride, in.row_stride,
           in.column_stride},
          region_, conv.weight.shift(task.group), packed(n));
  }

  // Half the sum of x over the window of each position, for each chunk:
  // first over the channels of a pixel, then over the taps.
  void find_sums(const Convolution& conv, const Band& band) {
    const auto& g = conv.g;
    const int64_t chunks = conv.weight.chunks();
    const int64_t chunk = conv.weight.chunk_blocks();
    const int64_t blocks = num_blocks(g.in_channels_per_group());
    float* pixels = pixel_sums_.reserve(region_.pixels());
    float* sums = x_sums_.reserve(chunks * band.positions());
    std::fill(sums, sums + chunks * band.positions(), 0.f);
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t n = 0; n < band.images; ++n) {
        conv.kernels.channel_sums(
            packed(n) + c * chunk * region_.plane(), region_.plane(),
            std::min(chunk, blocks - c * chunk), region_.pixels(), pixels);
        for (int64_t oh = 0; oh < band.rows; ++oh, sums += band.columns)
          for (int64_t t = 0; t < g.taps(); ++t) {
            const float* row = pixels + steps_[t].offset / kBlock +
                region_.pixel(oh * g.stride_h, 0);
            for (int64_t ow = 0; ow < band.columns; ++ow)
              sums[ow] += row[ow];
          }
      }
  }

  // Adds a chunk of input blocks to the sums of all positions.
  void add_chunk(const Convolution& conv, const Task& task, int64_t out_block,
                 int64_t chunk, float* sums) {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t blocks = num_blocks(g.in_channels_per_group());
    const int64_t first = chunk * conv.weight.chunk_blocks();
    const int64_t last = std::min(first + conv.weight.chunk_blocks(), blocks);
    const Step* steps = steps_.data() + first * g.taps();
    const int64_t vectors = conv.weight.vectors(out_block);
    const auto& kernels = conv.kernels.l1_distance[conv.form][vectors];
    const float* w = conv.weight.weights(task.group, out_block, first);
    const float* w_sums = conv.weight.half_sums(task.group, out_block, chunk);
    const float* x_sums = x_sums_.get() + chunk * band.positions();
    const int64_t tiles =
        ceil_div(band.columns, conv.kernels.forward_tile[vectors]);
    for (int64_t n = 0; n < band.images; ++n)
      for (int64_t oh = 0; oh < band.rows; ++oh) {
        const float* row =
            packed(n) + region_.pixel(oh * g.stride_h, 0) * kBlock;
        for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal width
          const int64_t ow = t * band.columns / tiles;
          const int64_t tile = (t + 1) * band.columns / tiles - ow;
          kernels[tile](row + ow * kBlock, steps, (last - first) * g.taps(), w,
                        x_sums, w_sums, chunk > 0, sums);
          sums += tile * vectors * conv.kernels.lanes;
          x_sums += tile;
        }
      }
  }

  // The mean over the filters at each position, of all blocks' sums.
  void find_means(const Convolution& conv, const Band& band) {
    const int64_t positions = band.positions();
    const int64_t channels = conv.g.out_channels_per_group();
    totals_.assign(positions, 0.);
    float* sums = sums_.get();
    for (int64_t ob = 0; ob < conv.weight.out_blocks(); ++ob) {
      const int64_t width = conv.weight.vectors(ob) * conv.kernels.lanes;
      const int64_t used = channels - ob * conv.weight.width();
      if (used < width)  // lanes without a filter
        for (int64_t p = 0; p < positions; ++p)
          std::fill(sums + p * width + used, sums + (p + 1) * width, 0.f);
      conv.kernels.lane_sums(sums, width, positions, totals_.data());
      sums += positions * conv.weight.width();
    }
    const double share = 1. / static_cast<double>(channels);
    float* means = means_.reserve(positions + kBlock);  // read in blocks
    std::fill(means + positions, means + positions + kBlock, 0.f);
    for (int64_t p = 0; p < positions; ++p)
      means[p] = static_cast<float>(totals_[p] * share);
  }

  // Writes one block of output channels.
  bool store(const Convolution& conv, const Task& task, int64_t out_block,
             const float* block_sums) const {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t width = conv.weight.vectors(out_block) * conv.kernels.lanes;
    const int64_t first = out_block * conv.weight.width();
    const int64_t channels = g.out_channels_per_group();
    const int64_t used = std::min(channels - first, width);
    const int64_t plane = g.out_h * g.out_w;
    const float* limits =
        conv.check ? conv.weight.limits(task.group, out_block) : nullptr;
    const float* means = conv.epilogue.center ? means_.get() : nullptr;
    const float factor = conv.form == kMax ? -2.f : -1.f;
    bool accurate = true;
    for_each_run(
        band, g.out_w,
        [&](int64_t position, int64_t run, int64_t n, int64_t oh) {
          const float* sums = block_sums + position * width;
          for (int64_t l = 0; l < used; l += kBlock) {
            const int64_t oc = task.group * channels + first + l;
            const int64_t out =
                (n * g.out_channels + oc) * plane + oh * g.out_w + band.column;
            for (int64_t p = 0; p < run; p += kBlock)
              accurate &= conv.kernels.store(
                  sums + p * width + l, width,
                  std::min<int64_t>(run - p, kBlock),
                  std::min<int64_t>(used - l, kBlock), factor,
                  means ? means + position + p : nullptr,
                  limits ? limits + l : nullptr,
                  moved(conv.epilogue, oc, out + p), conv.output + out + p,
                  plane);
          }
        });
    return accurate;
  }

  static Epilogue moved(Epilogue e, int64_t channel, int64_t position) {
    if (e.scale)
      e.mean += channel, e.scale += channel, e.bias += channel;
    if (e.residual)
      e.residual += position;
    return e;
  }

  float* packed(int64_t n) { return packed_.get() + n * image_; }

  Region region_{};
  int64_t image_ = 0;  // floats of a packed image
  std::vector<Step> steps_;
  Buffer packed_, pixel_sums_, x_sums_, sums_, means_;
  std::vector<double> totals_;
};

// Returns false, with an unfinished output, if checked and not accurate.
bool convolve(const Convolution& conv) {
  const auto& g = conv.g;
  std::atomic<bool> accurate{true};
  for_each_task<ForwardWorker>(
      g.batch, g.groups, conv.weight.out_blocks(), conv.epilogue.center,
      g.out_h, g.out_w, [&](ForwardWorker& worker, const Task& task) {
        if (accurate.load(std::memory_order_relaxed) &&
            !worker.run(conv, task))
          accurate = false;
      });
  return accurate;
}

}  // namespace

int64_t packed_weight_size(const Conv2dGeometry& g) {
  return PackedWeight(g, kernels()).size();
}

void pack_weight(
    const Conv2dGeometry& g, Form form, const float* weight, float* packed) {
  PackedWeight target(g, kernels());
  target.attach(packed);
  target.pack(weight, form);
}

// kAuto takes the max form, looks at every distance on its way to the output
// and starts again in the exact form if one is too small beside its filter's
// sum |w - c| for the max form to resolve it, or is not a number: the bounds
// are in packed_weight.cpp.
bool adder_conv2d_f32(
    const Conv2dGeometry& geometry, Mode mode, const Images& input,
    const float* weight, const float* packed, const Epilogue& epilogue,
    float* output) {
  const Conv2dGeometry g = flattened(geometry, input);
  PackedWeight target(g, kernels());
  Buffer buffer;
  const auto run = [&](Form form, bool check) {
    if (form == kMax && packed) {
      target.attach(const_cast<float*>(packed));
    } else {
      target.attach(buffer.reserve(target.size()));
      target.pack(weight, form);
    }
    return convolve(
        {g, kernels(), form, check, input, target, epilogue, output});
  };
  if (mode == Mode::kAuto &&
      g.in_channels_per_group() * g.taps() < kFewestTermsOfMax)
    mode = Mode::kExact;
  if (mode != Mode::kExact && run(kMax, mode == Mode::kAuto))
    return false;
  run(kExact, false);
  return mode == Mode::kAuto;
}

}  // namespace mmadder::cpu
