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

#include "band_sums.h"
#include "drivers.h"

namespace mmadder::cpu {
namespace {

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
    const SummedBand summed{
        conv.g,    conv.kernels, conv.form,         conv.weight,
        task.band, task.group,   packed(conv, task)};
    return sums_.for_each_block(
        summed, task, conv.epilogue.center,
        [&](int64_t ob, const float* sums, const float* means) {
          return store(conv, task, ob, sums, means);
        });
  }

 private:
  SeenImages packed(const Convolution& conv, const Task& task) {
    const auto& g = conv.g;
    const auto& in = conv.input;
    const int64_t channels = g.in_channels_per_group();
    const Region region = seen_region(g, task.band);
    const int64_t image = packed_floats(region, num_blocks(channels));
    float* data = packed_.reserve(task.band.images * image);
    for (int64_t n = 0; n < task.band.images; ++n)
      pack_region(
          conv.kernels,
          {in.data + (task.band.n + n) * in.batch_stride +
               task.group * channels * in.channel_stride,
           channels, g.in_h, g.in_w, in.channel_stride, in.row_stride,
           in.column_stride},
          region, conv.weight.shift(task.group), data + n * image);
    return {data, image, region.plane(), region, region.pixels(), 1};
  }

  // Writes one block of output channels.
  bool store(const Convolution& conv, const Task& task, int64_t out_block,
             const float* block_sums, const float* means) const {
    const auto& g = conv.g;
    const auto& band = task.band;
    const int64_t width = conv.weight.vectors(out_block) * conv.kernels.lanes;
    const int64_t first = out_block * conv.weight.width();
    const int64_t channels = g.out_channels_per_group();
    const int64_t used = std::min(channels - first, width);
    const int64_t plane = g.out_h * g.out_w;
    const float* limits =
        conv.check ? conv.weight.limits(task.group, out_block) : nullptr;
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

  Buffer packed_;
  BandSums sums_;
};

// Returns false, with an unfinished output, if checked and not accurate.
bool convolve(const Convolution& conv) {
  const auto& g = conv.g;
  std::atomic<bool> accurate{true};
  std::deque<ForwardWorker> workers;
  for_each_task(
      workers, g.batch, g.groups, conv.weight.out_blocks(),
      conv.epilogue.center, g.out_h, g.out_w,
      [&](ForwardWorker& worker, const Task& task) {
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

void pack_weight(const Conv2dGeometry& g, bool shifted, const float* weight,
                 float* packed) {
  PackedWeight target(g, kernels());
  target.attach(packed);
  target.pack(weight, kMax, shifted);
}

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
      target.pack(weight, form, true);
    }
    return convolve(
        {g, kernels(), form, check, input, target, epilogue, output});
  };
  return in_form_of(mode, g, run);
}

}  // namespace mmadder::cpu
