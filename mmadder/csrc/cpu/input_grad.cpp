// Input gradient in gather form: lanes are input channels, one value of the
// output gradient is broadcast to them.
//
// With stride s the input positions fall into s x s phases; inside a phase a
// tap either reaches every position or none, and the output gradient it meets
// moves by one when the input moves by s. Each weight belongs to one phase.
#include <ATen/Parallel.h>

#include <memory>
#include <tuple>
#include <utility>

#include "drivers.h"
#include "packing.h"

namespace mmadder::cpu {
namespace {

constexpr int64_t kBandPositions = 1024;
constexpr int64_t kChunkBytes = 24 * 1024;  // packed weights of one chunk

// Output row (column) of a tap for the phase's first input row (column).
struct Tap {
  int64_t kernel_h, kernel_w, out_h, out_w;
};

struct Phase {
  int64_t row, column;  // of its first position in the image
  std::vector<Tap> taps;
  int64_t weight_offset;  // in taps before this phase
};

// Taps whose output position is whole: input + pad - k * dilation = s * output.
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
  for (int64_t r = 0; r < g.stride_h; ++r)
    for (int64_t c = 0; c < g.stride_w; ++c) {
      Phase phase{r, c, {}, offset};
      for (const auto& [kh, oh] : phase_taps(
               r, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h))
        for (const auto& [kw, ow] : phase_taps(
                 c, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w))
          phase.taps.push_back({kh, kw, oh, ow});
      offset += phase.taps.size();
      if (!phase.taps.empty())
        phases.push_back(std::move(phase));
    }
  return phases;
}

// Weights as [group][input block of lanes][phase][output block][tap]
// [4 * quads][lanes].
class PackedWeight {
 public:
  PackedWeight(const Conv2dGeometry& g, int64_t lanes)
      : g_(g),
        lanes_(lanes),
        in_blocks_(ceil_div(g.in_channels_per_group(), lanes)),
        padded_out_(ceil_div(g.out_channels_per_group(), kQuad) * kQuad),
        data_(g.groups * in_blocks_ * padded_out_ * g.taps() * lanes) {}

  int64_t in_blocks() const { return in_blocks_; }

  const float* block(int64_t group, int64_t in_block, const Phase& phase,
                     int64_t out_block) const {
    return data_.get() +
        ((group * in_blocks_ + in_block) * g_.taps() + phase.weight_offset) *
            padded_out_ * lanes_ +
        out_block * kBlock * phase.taps.size() * lanes_;
  }

  void fill(const float* weight, const std::vector<Phase>& phases) {
    at::parallel_for(
        0, g_.groups * in_blocks_, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            for (const Phase& phase : phases)
              for (int64_t ob = 0;
                   ob < num_blocks(g_.out_channels_per_group()); ++ob)
                fill_block(weight, i / in_blocks_, i % in_blocks_, phase, ob);
        });
  }

 private:
  void fill_block(const float* weight, int64_t group, int64_t in_block,
                  const Phase& phase, int64_t out_block) {
    float* out =
        const_cast<float*>(block(group, in_block, phase, out_block));
    const int64_t in_channels = g_.in_channels_per_group();
    const int64_t out_channels = g_.out_channels_per_group();
    const int64_t padded = num_quads(out_channels, out_block) * kQuad;
    const int64_t used =
        std::min<int64_t>(out_channels - out_block * kBlock, kBlock);
    const int64_t lanes = std::min(in_channels - in_block * lanes_, lanes_);
    if (used < padded || lanes < lanes_)
      std::fill(out, out + phase.taps.size() * padded * lanes_, 0.f);
    for (int64_t o = 0; o < used; ++o) {
      const int64_t oc = group * out_channels + out_block * kBlock + o;
      const float* in =
          weight + (oc * in_channels + in_block * lanes_) * g_.taps();
      for (size_t t = 0; t < phase.taps.size(); ++t) {
        const int64_t tap =
            phase.taps[t].kernel_h * g_.kernel_w + phase.taps[t].kernel_w;
        for (int64_t l = 0; l < lanes; ++l)
          out[(t * padded + o) * lanes_ + l] = in[l * g_.taps() + tap];
      }
    }
  }

  const Conv2dGeometry& g_;
  const int64_t lanes_, in_blocks_, padded_out_;
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

// One band of one group: packed gradient and input, and the result.
class BandTask {
 public:
  BandTask(const Conv2dGeometry& g, const Kernels& kernels, const Band& band)
      : g_(g), kernels_(kernels), band_(band) {
    std::tie(grad_region_.row, grad_region_.rows) = reached(
        band.row, band.rows, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
    std::tie(grad_region_.column, grad_region_.columns) = reached(
        band.column, band.columns, g.kernel_w, g.stride_w, g.pad_w,
        g.dilation_w);
    region_ = {band.row, band.rows, band.column, band.columns};
    image_ = num_blocks(g.in_channels_per_group()) * region_.plane();
    grad_image_ =
        num_blocks(g.out_channels_per_group()) * grad_region_.plane();
    grad_.reset(new Buffer(band.images * grad_image_));
    input_.reset(new Buffer(band.images * image_));
    grad_input_.reset(new Buffer(band.images * image_));
  }

  void run(const float* grad_output, const float* input,
           const PackedWeight& weight, const std::vector<Phase>& phases,
           InputGradient form, int64_t group, float* grad_input) {
    const int64_t in_channels = g_.in_channels_per_group();
    const int64_t out_channels = g_.out_channels_per_group();
    for (int64_t n = 0; n < band_.images; ++n) {
      const int64_t image = band_.n + n;
      pack_region(
          kernels_,
          grad_output + (image * g_.out_channels + group * out_channels) *
                  g_.out_h * g_.out_w,
          out_channels, g_.out_h, g_.out_w, grad_region_,
          grad_->get() + n * grad_image_);
      pack_region(
          kernels_,
          input + (image * g_.in_channels + group * in_channels) * g_.in_h *
                  g_.in_w,
          in_channels, g_.in_h, g_.in_w, region_,
          input_->get() + n * image_);
    }
    std::fill(grad_input_->get(),
              grad_input_->get() + band_.images * image_, 0.f);
    for (int64_t b = 0; b < weight.in_blocks(); ++b)
      for (const Phase& phase : phases)
        add_phase(b, phase, weight, form, group);
    store(group, grad_input);
  }

 private:
  // Adds all taps of a phase to a block of input channels.
  void add_phase(int64_t in_block, const Phase& phase,
                 const PackedWeight& weight, InputGradient form,
                 int64_t group) {
    const int64_t out_channels = g_.out_channels_per_group();
    const int64_t out_blocks = num_blocks(out_channels);
    const int64_t block_bytes = kBlock * phase.taps.size() * kernels_.lanes *
        static_cast<int64_t>(sizeof(float));
    const int64_t chunk = std::max<int64_t>(kChunkBytes / block_bytes, 1);
    std::vector<Step> steps;
    for (int64_t first = 0; first < out_blocks; first += chunk) {
      steps.clear();
      for (int64_t b = first; b < std::min(first + chunk, out_blocks); ++b)
        for (const Tap& tap : phase.taps)
          steps.push_back(
              {b * grad_region_.plane() +
                   (tap.out_h * grad_region_.columns + tap.out_w) * kBlock,
               num_quads(out_channels, b)});
      add_chunk(in_block, phase, steps,
                weight.block(group, in_block, phase, first), form);
    }
  }

  void add_chunk(int64_t in_block, const Phase& phase,
                 const std::vector<Step>& steps, const float* weight,
                 InputGradient form) {
    // First input position of the phase inside the band, counted in strides.
    const int64_t i0 = ceil_div(band_.row - phase.row, g_.stride_h);
    const int64_t i1 =
        floor_div(band_.row + band_.rows - 1 - phase.row, g_.stride_h) + 1;
    const int64_t j0 = ceil_div(band_.column - phase.column, g_.stride_w);
    const int64_t j1 = floor_div(
        band_.column + band_.columns - 1 - phase.column, g_.stride_w) + 1;
    if (i0 >= i1 || j0 >= j1)
      return;
    const int64_t channel = in_block * kernels_.lanes;
    const int64_t lane_offset =
        channel / kBlock * region_.plane() + channel % kBlock;
    const int64_t tiles = ceil_div(j1 - j0, kernels_.input_grad_tile);
    const int64_t x_stride = g_.stride_w * kBlock;
    for (int64_t n = 0; n < band_.images; ++n)
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t j = j0 + t * (j1 - j0) / tiles;
          const int64_t width = j0 + (t + 1) * (j1 - j0) / tiles - j;
          const int64_t row = phase.row + i * g_.stride_h - band_.row;
          const int64_t column =
              phase.column + j * g_.stride_w - band_.column;
          const int64_t x = n * image_ + lane_offset +
              (row * region_.columns + column) * kBlock;
          const float* grad = grad_->get() + n * grad_image_ +
              ((i - grad_region_.row) * grad_region_.columns + j -
               grad_region_.column) * kBlock;
          kernels_.input_grad[form][width](
              grad, steps.data(), steps.size(), weight, input_->get() + x,
              x_stride, grad_input_->get() + x);
        }
  }

  void store(int64_t group, float* grad_input) const {
    const int64_t channels = g_.in_channels_per_group();
    const int64_t plane = g_.in_h * g_.in_w;
    for (int64_t n = 0; n < band_.images; ++n)
      for (int64_t b = 0; b < num_blocks(channels); ++b)
        for (int64_t r = 0; r < band_.rows; ++r) {
          const float* in = grad_input_->get() + n * image_ +
              (b * band_.rows + r) * band_.columns * kBlock;
          float* out = grad_input +
              ((band_.n + n) * g_.in_channels + group * channels +
               b * kBlock) * plane +
              (band_.row + r) * g_.in_w + band_.column;
          for (int64_t c = 0; c < band_.columns; c += kBlock)
            kernels_.transpose(
                in + c * kBlock, kBlock, out + c, plane,
                std::min<int64_t>(band_.columns - c, kBlock),
                std::min<int64_t>(channels - b * kBlock, kBlock), 1.f);
        }
  }

  const Conv2dGeometry& g_;
  const Kernels& kernels_;
  const Band band_;
  Region region_, grad_region_;
  int64_t image_, grad_image_;
  std::unique_ptr<Buffer> grad_, input_, grad_input_;
};

}  // namespace

void adder_conv2d_input_grad_f32(
    const Conv2dGeometry& geometry, const float* grad_output,
    const float* input, const float* weight, InputGradient form,
    float* grad_input) {
  const Conv2dGeometry g = flattened(geometry);
  const Kernels& kernels = cpu::kernels();
  const auto phases = make_phases(g);
  PackedWeight packed(g, kernels.lanes);
  packed.fill(weight, phases);
  const auto bands = make_bands(
      g.batch, g.in_h, g.in_w,
      band_positions(g.batch * g.in_h * g.in_w, kBandPositions));
  const int64_t tasks = static_cast<int64_t>(bands.size()) * g.groups;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      BandTask(g, kernels, bands[i / g.groups])
          .run(grad_output, input, packed, phases, form, i % g.groups,
               grad_input);
  });
}

}  // namespace mmadder::cpu
