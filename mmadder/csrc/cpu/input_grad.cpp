// Input gradient in gather form: lanes are input channels, one value of the
// output gradient is broadcast to them.
//
// With stride s the input positions fall into s x s phases; inside a phase a
// tap either reaches every position or none, and the output gradient it meets
// moves by one when the input moves by s. Each weight belongs to one phase.
#include <tuple>
#include <utility>

#include "drivers.h"
#include "packing.h"

namespace mmadder::cpu {
namespace {

constexpr float kNoShift[kBlock] = {};

// Output row (column) of a tap for the phase's first input row (column).
struct Tap {
  int64_t kernel_h, kernel_w, out_h, out_w;
};

struct Phase {
  int64_t row, column;  // of its first position in the image
  std::vector<Tap> taps;
  int64_t weight_offset;  // in taps before this phase
};

// Taps whose output position is whole: input + pad - k * dilation = s *
// output.
std::vector<std::pair<int64_t, int64_t>> phase_taps(
    int64_t phase, int64_t kernel, int64_t stride, int64_t pad,
    int64_t dilation) {
  std::vector<std::pair<int64_t, int64_t>> taps;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t offset = phase + pad - k * dilation;
    if (offset % stride == 0)
      taps.emplace_back(k, offset / stride);
  }
  return taps;
}

std::vector<Phase> make_phases(const Conv2dGeometry& g) {
  std::vector<Phase> phases;
  int64_t offset = 0;
  for (int64_t r = 0; r < std::min(g.stride_h, g.in_h); ++r)
    for (int64_t c = 0; c < std::min(g.stride_w, g.in_w); ++c) {
      Phase phase{r, c, {}, offset};
      for (const auto& [kh, oh] :
           phase_taps(r, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h))
        for (const auto& [kw, ow] :
             phase_taps(c, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w))
          phase.taps.push_back({kh, kw, oh, ow});
      offset += phase.taps.size();
      if (!phase.taps.empty())
        phases.push_back(std::move(phase));
    }
  return phases;
}

// Weights as [group][input block][phase][output block][tap][4 * quads][lanes],
// an input block being as wide as a tile.
class PhasedWeight {
 public:
  PhasedWeight(const Conv2dGeometry& g, const Kernels& kernels, int vectors,
               const std::vector<Phase>& phases)
      : g_(g),
        kernels_(kernels),
        phases_(phases),
        width_(vectors * kernels.lanes),
        padded_out_(ceil_div(g.out_channels_per_group(), kQuad) * kQuad) {
    data_.reserve(g.groups * in_blocks() * padded_out_ * g.taps() * width_);
  }

  int64_t in_blocks() const {
    return ceil_div(g_.in_channels_per_group(), width_);
  }

  float* block(int64_t group, int64_t in_block, const Phase& phase,
               int64_t out_block) const {
    return data_.get() +
        ((group * in_blocks() + in_block) * g_.taps() + phase.weight_offset) *
        padded_out_ * width_ +
        out_block * kBlock * phase.taps.size() * width_;
  }

  void fill(const float* weight) {
    at::parallel_for(
        0, g_.groups * in_blocks(), 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            for (int64_t ob = 0; ob < num_blocks(g_.out_channels_per_group());
                 ++ob)
              fill_block(weight, i / in_blocks(), i % in_blocks(), ob);
        });
  }

 private:
  void fill_block(const float* weight, int64_t group, int64_t in_block,
                  int64_t out_block) {
    const int64_t in_channels = g_.in_channels_per_group();
    const int64_t out_channels = g_.out_channels_per_group();
    const int64_t padded = padded_channels(out_channels, out_block);
    for (int64_t o = 0; o < padded; ++o) {
      const int64_t oc = out_block * kBlock + o;
      for (int64_t l = 0; l < width_; l += kBlock) {
        const int64_t ic = in_block * width_ + l;
        const int64_t rows = oc < out_channels
            ? std::clamp<int64_t>(in_channels - ic, 0, kBlock)
            : 0;
        const float* in = weight +
            ((group * out_channels + oc) * in_channels + ic) * g_.taps();
        // The next filter's is far away.
        for (int64_t i = 0; i < rows * g_.taps(); i += kBlock)
          __builtin_prefetch(in + 2 * in_channels * g_.taps() + i);
        fill_lanes(in, rows, std::min<int64_t>(width_ - l, kBlock),
                   [&](const Phase& phase, int64_t tap) {
                     return block(group, in_block, phase, out_block) +
                         (tap * padded + o) * width_ + l;
                   });
      }
    }
  }

  // The taps of up to 16 neighbouring input channels of one filter.
  template <typename Target>
  void fill_lanes(
      const float* in, int64_t rows, int64_t lanes, const Target& target) {
    for (int64_t first = 0; first < g_.taps(); first += kBlock) {
      const int64_t last = std::min<int64_t>(first + kBlock, g_.taps());
      float tile[kBlock * kBlock];
      kernels_.transpose(
          in + first, g_.taps(), rows, last - first, kNoShift, tile);
      for (const Phase& phase : phases_)
        for (size_t t = 0; t < phase.taps.size(); ++t) {
          const int64_t tap =
              phase.taps[t].kernel_h * g_.kernel_w + phase.taps[t].kernel_w;
          if (tap >= first && tap < last)
            std::memcpy(target(phase, t), tile + (tap - first) * kBlock,
                        lanes * sizeof(float));
        }
    }
  }

  const Conv2dGeometry& g_;
  const Kernels& kernels_;
  const std::vector<Phase>& phases_;
  const int64_t width_, padded_out_;
  Buffer data_;
};

// The output positions that a band of input rows or columns meets.
std::pair<int64_t, int64_t> reached(
    int64_t begin, int64_t size, int64_t kernel, int64_t stride, int64_t pad,
    int64_t dilation) {
  const int64_t first =
      -floor_div(-(begin + pad - (kernel - 1) * dilation), stride);
  const int64_t last = floor_div(begin + size - 1 + pad, stride);
  return {first, std::max<int64_t>(last - first + 1, 1)};
}

// What all threads share.
struct Gradient {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const InputGradient slope;
  const int vectors;
  const std::vector<Phase>& phases;
  const Images& grad_output;
  const Images& input;
  const PhasedWeight& weight;
  float* grad_input;
};

// One thread's buffers and the task that it is at. All images of channels are
// packed; of input and result, only the blocks of the task are used.
class GradientWorker {
 public:
  void run(const Gradient& gradient, const Task& task) {
    const auto& g = gradient.g;
    const auto& band = task.band;
    std::tie(grad_region_.row, grad_region_.rows) = reached(
        band.row, band.rows, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
    std::tie(grad_region_.column, grad_region_.columns) = reached(
        band.column, band.columns, g.kernel_w, g.stride_w, g.pad_w,
        g.dilation_w);
    region_ = {band.row, band.rows, band.column, band.columns};
    // The channels of the task, in whole blocks.
    const int64_t width = gradient.vectors * gradient.kernels.lanes;
    first_channel_ = task.first_block * width / kBlock * kBlock;
    channels_ = std::min(task.last_block * width, g.in_channels_per_group()) -
        first_channel_;
    image_ = ceil_div(channels_, std::max<int64_t>(kBlock, width)) *
        std::max<int64_t>(kBlock, width) / kBlock * region_.plane();
    grad_image_ =
        packed_floats(grad_region_, num_blocks(g.out_channels_per_group()));
    pack(gradient, task);
    float* result = result_.reserve(band.images * image_);
    std::fill(result, result + band.images * image_, 0.f);
    for (int64_t b = task.first_block; b < task.last_block; ++b)
      for (const Phase& phase : gradient.phases)
        add_phase(gradient, task, b, phase);
    store(gradient, task);
  }

 private:
  void pack(const Gradient& gradient, const Task& task) {
    const auto& g = gradient.g;
    const int64_t out_channels = g.out_channels_per_group();
    zeros_.assign(
        std::max(num_blocks(out_channels), num_blocks(channels_)) * kBlock,
        0.f);
    float* grad = grad_.reserve(task.band.images * grad_image_);
    float* input = input_.reserve(task.band.images * image_);
    const auto view =
        [&](const Images& images, int64_t image, int64_t channel,
            int64_t channels, int64_t height, int64_t width) -> ImageView {
      return {
          images.data + image * images.batch_stride +
              channel * images.channel_stride,
          channels,
          height,
          width,
          images.channel_stride,
          images.row_stride,
          images.column_stride};
    };
    for (int64_t n = 0; n < task.band.images; ++n) {
      const int64_t image = task.band.n + n;
      pack_region(
          gradient.kernels,
          view(gradient.grad_output, image, task.group * out_channels,
               out_channels, g.out_h, g.out_w),
          grad_region_, zeros_.data(), grad + n * grad_image_);
      pack_region(
          gradient.kernels,
          view(gradient.input, image,
               task.group * g.in_channels_per_group() + first_channel_,
               channels_, g.in_h, g.in_w),
          region_, zeros_.data(), input + n * image_);
    }
  }

  // Adds all taps of a phase to a block of input channels.
  void add_phase(const Gradient& gradient, const Task& task, int64_t in_block,
                 const Phase& phase) {
    const int64_t out_channels = gradient.g.out_channels_per_group();
    const int64_t out_blocks = num_blocks(out_channels);
    const int64_t block_bytes = kBlock * phase.taps.size() * gradient.vectors *
        gradient.kernels.lanes * static_cast<int64_t>(sizeof(float));
    const int64_t chunk = chunk_blocks(block_bytes);
    for (int64_t first = 0; first < out_blocks; first += chunk) {
      steps_.clear();
      for (int64_t b = first; b < std::min(first + chunk, out_blocks); ++b)
        for (const Tap& tap : phase.taps)
          steps_.push_back(
              {b * grad_region_.plane() +
                   (tap.out_h * grad_region_.columns + tap.out_w) * kBlock,
               padded_channels(out_channels, b) / kQuad});
      add_chunk(gradient, task.band, in_block, phase,
                gradient.weight.block(task.group, in_block, phase, first));
    }
  }

  void add_chunk(const Gradient& gradient, const Band& band, int64_t in_block,
                 const Phase& phase, const float* weight) {
    const auto& g = gradient.g;
    // First input position of the phase inside the band, counted in strides.
    const int64_t i0 = ceil_div(band.row - phase.row, g.stride_h);
    const int64_t i1 =
        floor_div(band.row + band.rows - 1 - phase.row, g.stride_h) + 1;
    const int64_t j0 = ceil_div(band.column - phase.column, g.stride_w);
    const int64_t j1 =
        floor_div(band.column + band.columns - 1 - phase.column, g.stride_w) +
        1;
    if (i0 >= i1 || j0 >= j1)
      return;
    const int vectors = gradient.vectors;
    const int64_t channel =
        in_block * vectors * gradient.kernels.lanes - first_channel_;
    const int64_t lane_offset =
        channel / kBlock * region_.plane() + channel % kBlock;
    const auto& kernels = gradient.kernels.input_grad[gradient.slope][vectors];
    const int64_t tiles =
        ceil_div(j1 - j0, gradient.kernels.input_grad_tile[vectors]);
    for (int64_t n = 0; n < band.images; ++n)
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t j = j0 + t * (j1 - j0) / tiles;
          const int64_t tile = j0 + (t + 1) * (j1 - j0) / tiles - j;
          const int64_t row = phase.row + i * g.stride_h - band.row;
          const int64_t column = phase.column + j * g.stride_w - band.column;
          const int64_t x = n * image_ + lane_offset +
              (row * region_.columns + column) * kBlock;
          const float* grad = grad_.get() + n * grad_image_ +
              ((i - grad_region_.row) * grad_region_.columns + j -
               grad_region_.column) *
                  kBlock;
          kernels[tile](
              grad, steps_.data(), steps_.size(), weight, input_.get() + x,
              g.stride_w * kBlock, region_.plane(), /*add=*/true,
              result_.get() + x);
        }
  }

  void store(const Gradient& gradient, const Task& task) const {
    const auto& g = gradient.g;
    const auto& band = task.band;
    const int64_t plane = g.in_h * g.in_w;
    for (int64_t n = 0; n < band.images; ++n)
      for (int64_t b = 0; b < num_blocks(channels_); ++b)
        for (int64_t r = 0; r < band.rows; ++r) {
          const float* in = result_.get() + n * image_ +
              (b * band.rows + r) * band.columns * kBlock;
          float* out = gradient.grad_input +
              ((band.n + n) * g.in_channels +
               task.group * g.in_channels_per_group() + first_channel_ +
               b * kBlock) *
                  plane +
              (band.row + r) * g.in_w + band.column;
          for (int64_t c = 0; c < band.columns; c += kBlock)
            gradient.kernels.store(
                in + c * kBlock, kBlock,
                std::min<int64_t>(band.columns - c, kBlock),
                std::min<int64_t>(channels_ - b * kBlock, kBlock), 1.f,
                nullptr, nullptr, {}, out + c, plane);
        }
  }

  Region region_{}, grad_region_{};
  int64_t first_channel_ = 0, channels_ = 0, image_ = 0, grad_image_ = 0;
  std::vector<Step> steps_;
  std::vector<float> zeros_;
  Buffer grad_, input_, result_;
};

bool has_nan(const float* values, int64_t size) {
  int found = 0;
  for (int64_t i = 0; i < size; ++i)
    found |= values[i] != values[i];
  return found;
}

// Narrow images fill a tile with two vectors of channels.
int choose_vectors(const Conv2dGeometry& g, const Kernels& kernels) {
  const int64_t columns = ceil_div(g.in_w, g.stride_w);
  return columns <= kernels.input_grad_tile[2] &&
          g.in_channels_per_group() > kernels.lanes
      ? 2
      : 1;
}

}  // namespace

void adder_conv2d_input_grad_f32(
    const Conv2dGeometry& geometry, const Images& grad_output,
    const Images& input, const float* weight, InputGradient slope,
    float* grad_input) {
  const Conv2dGeometry g = flattened(geometry, grad_output, input);
  const Kernels& kernels =
      slope == kHardtanh && cpu::kernels().clip_hides_nan &&
          has_nan(
              weight, g.out_channels * g.in_channels_per_group() * g.taps())
      ? portable_kernels()
      : cpu::kernels();
  const int vectors = choose_vectors(g, kernels);
  const auto phases = make_phases(g);
  PhasedWeight packed(g, kernels, vectors, phases);
  packed.fill(weight);
  // Tasks must not share a block of 16 channels.
  const int64_t aligned =
      std::max<int64_t>(kBlock / (vectors * kernels.lanes), 1);
  const Gradient gradient{
      g,           kernels, slope,  vectors,   phases,
      grad_output, input,   packed, grad_input};
  std::deque<GradientWorker> workers;
  for_each_task(
      workers, g.batch, g.groups, ceil_div(packed.in_blocks(), aligned), false,
      g.in_h, g.in_w, [&](GradientWorker& worker, Task task) {
        task.first_block *= aligned;
        task.last_block =
            std::min(task.last_block * aligned, packed.in_blocks());
        worker.run(gradient, task);
      });
}

}  // namespace mmadder::cpu
