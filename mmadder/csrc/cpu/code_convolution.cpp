// The convolutions of an integer network: sums of products of codes and
// weights, four at a time. A band's input is packed once, channels as
// neighbours, zero points around it; the rest is the adders' structure.
#include "code_worker.h"

namespace mmadder::cpu {
namespace {

// Of a step, so that chunks of steps can be as large as the cache likes.
constexpr int64_t kMostQuads = 64;
constexpr int64_t kFour = 4;

// Per block of output channels: [row of a window][quad][output][4]. With
// neighbouring columns a row of a window is one run of values; otherwise each
// tap is a row of its own. Runs are filled up to quads with weights of zero.
class PackedProducts {
 public:
  PackedProducts(const Conv2dGeometry& g, const Kernels& kernels)
      : g_(g),
        joined_(g.dilation_w == 1),
        values_(g.in_channels * (joined_ ? g.kernel_w : 1)),
        width_(kMaxVectors * kernels.int_lanes) {}

  int64_t size() const { return out_blocks() * block_size(); }
  int64_t width() const { return width_; }
  int64_t out_blocks() const { return ceil_div(g_.out_channels, width_); }
  int64_t block_size() const { return rows() * quads() * kFour * width_; }

  void pack(const int8_t* weight, int8_t* packed) const {
    std::fill(packed, packed + size(), 0);
    for (int64_t o = 0; o < g_.out_channels; ++o)
      for (int64_t r = 0; r < rows(); ++r)
        for (int64_t i = 0; i < values_; ++i) {
          const int64_t c = i % g_.in_channels;
          const int64_t tap =
              r * (joined_ ? g_.kernel_w : 1) + i / g_.in_channels;
          packed[o / width_ * block_size() +
                 ((r * quads() + i / kFour) * width_ + o % width_) * kFour +
                 i % kFour] =
              weight[(o * g_.in_channels + c) * g_.taps() + tap];
        }
  }

  // The steps of a window over rows of `columns` pixels.
  void find_steps(int64_t columns, std::vector<Step>& steps) const {
    steps.clear();
    for (int64_t r = 0; r < rows(); ++r) {
      const int64_t kh = joined_ ? r : r / g_.kernel_w;
      const int64_t kw = joined_ ? 0 : r % g_.kernel_w;
      const int64_t offset =
          (kh * g_.dilation_h * columns + kw * g_.dilation_w) * g_.in_channels;
      for (int64_t q = 0; q < quads(); q += kMostQuads)
        steps.push_back(
            {offset + kFour * q, std::min(quads() - q, kMostQuads)});
    }
  }

 private:
  int64_t rows() const { return joined_ ? g_.kernel_h : g_.taps(); }
  int64_t quads() const { return ceil_div(values_, kFour); }

  const Conv2dGeometry& g_;
  const bool joined_;
  const int64_t values_, width_;
};

// Columns from first to last of a region's row r, [column][channel].
void pack_row(
    const Picture& picture, const Conv2dGeometry& g, int64_t n,
    const Region& region, int64_t first, int64_t last, int64_t r,
    uint8_t* out) {
  for (int64_t k = 0; k < g.in_channels; ++k) {
    const uint8_t* x = picture.data +
        ((n * g.in_channels + k) * g.in_h + region.row + r) * g.in_w +
        region.column;
    for (int64_t c = first; c < last; ++c)
      out[c * g.in_channels + k] = x[c];
  }
}

void pack_row(
    const CodeMap& map, const Conv2dGeometry& g, int64_t n,
    const Region& region, int64_t first, int64_t last, int64_t r,
    uint8_t* out) {
  for (int64_t b = 0; b < map.blocks(); ++b) {
    const int64_t used =
        std::min<int64_t>(map.channels - b * kBlockBytes, kBlockBytes);
    for (int64_t c = first; c < last; ++c)
      std::memcpy(out + c * g.in_channels + b * kBlockBytes,
                  map.at(n, b, region.row + r, region.column + c), used);
  }
}

void fill_row(const Picture& picture, const Conv2dGeometry& g, int64_t columns,
              uint8_t* out) {
  for (int64_t i = 0; i < columns * g.in_channels; ++i)
    out[i] = static_cast<uint8_t>(picture.zero_points[i % g.in_channels]);
}

void fill_row(const CodeMap& map, const Conv2dGeometry& g, int64_t columns,
              uint8_t* out) {
  std::memset(out, map.zero_point, columns * g.in_channels);
}

// Packs a region of image n to [row][column][channel].
template <typename Input>
void pack_region(const Input& input, const Conv2dGeometry& g, int64_t n,
                 const Region& region, uint8_t* packed) {
  const int64_t row = region.columns * g.in_channels;
  const int64_t first = std::clamp<int64_t>(-region.column, 0, region.columns);
  const int64_t last =
      std::clamp<int64_t>(g.in_w - region.column, first, region.columns);
  for (int64_t r = 0; r < region.rows; ++r, packed += row) {
    const bool inside = region.row + r >= 0 && region.row + r < g.in_h;
    if (!inside) {
      fill_row(input, g, region.columns, packed);
      continue;
    }
    fill_row(input, g, first, packed);
    pack_row(input, g, n, region, first, last, r, packed);
    fill_row(input, g, region.columns - last, packed + last * g.in_channels);
  }
}

// Calls store(channel, n, row, column, positions, sums) for runs of positions
// and for vectors of output channels; sums[position] are width() apart.
template <typename Input, typename Store>
void for_each_vector(
    const Conv2dGeometry& g, const Input& input, const int8_t* weight,
    CodeWorkers& workers, const Store& store) {
  if (g.batch == 0)
    return;
  const Kernels& kernels = cpu::kernels();
  const PackedProducts packed(g, kernels);
  const int64_t width = packed.width();
  // Neither border nor gaps: all positions of a band lie in one line.
  const bool dense = g.taps() == 1 && g.stride_h == 1 && g.stride_w == 1 &&
      g.pad_h == 0 && g.pad_w == 0;
  const auto run = [&](CodeWorker& worker, const Task& task) {
    const auto& band = task.band;
    const Region region = seen_region(g, band);
    const int64_t columns = region.columns,
                  stride = g.stride_w * g.in_channels;
    const int64_t image = region.rows * columns * g.in_channels;
    const int64_t bytes = band.images * image;
    // The last quad may reach beyond.
    auto* x = reinterpret_cast<uint8_t*>(
        worker.packed.reserve(ceil_div(bytes, kFour) + 1));
    std::memset(x + bytes, 0, kFour);
    for (int64_t n = 0; n < band.images; ++n)
      pack_region(input, g, band.n + n, region, x + n * image);
    packed.find_steps(columns, worker.steps);
    const auto& steps = worker.steps;
    const int64_t num_steps = static_cast<int64_t>(steps.size());
    auto* sums = reinterpret_cast<int32_t*>(
        worker.products.reserve(band.positions() * width));
    const int64_t lines = dense ? 1 : band.images * band.rows;
    const int64_t line = band.positions() / lines;
    const int64_t tiles = ceil_div(line, kernels.byte_tile);
    for (int64_t ob = task.first_block; ob < task.last_block; ++ob) {
      const int8_t* w = weight + ob * packed.block_size();
      for (int64_t s = 0; s < num_steps;) {
        int64_t end = s, bytes = 0;
        do
          bytes += steps[end++].quads * kFour * width;
        while (end < num_steps &&
               bytes + steps[end].quads * kFour * width <= kChunkBytes);
        WeightsAhead ahead(w, w + bytes, lines * tiles);
        for (int64_t l = 0; l < lines; ++l) {
          const uint8_t* from = x + l / band.rows * image +
              l % band.rows * g.stride_h * columns * g.in_channels;
          for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal width
            const int64_t p = t * line / tiles;
            ahead.fetch();
            kernels.products[(t + 1) * line / tiles - p](
                from + p * stride, stride, steps.data() + s, end - s, w, s > 0,
                sums + (l * line + p) * width);
          }
        }
        w += bytes;
        s = end;
      }
      const int64_t channel = ob * width;
      for (int64_t i = 0; i < band.images * band.rows; ++i)
        for (int64_t l = 0; l < width && channel + l < g.out_channels;
             l += kernels.int_lanes)
          store(
              channel + l, band.n + i / band.rows, band.row + i % band.rows,
              band.column, band.columns, sums + i * band.columns * width + l);
    }
  };
  for_each_task(workers.get(), g.batch, 1, packed.out_blocks(), false, g.out_h,
                g.out_w, run);
}

}  // namespace

int64_t packed_products_size(const Conv2dGeometry& g) {
  return PackedProducts(g, kernels()).size();
}

void pack_products(
    const Conv2dGeometry& g, const int8_t* weight, int8_t* packed) {
  PackedProducts(g, kernels()).pack(weight, packed);
}

template <typename Input>
void conv2d_codes(
    const Conv2dGeometry& g, const Input& input, const int8_t* packed,
    const CodeTarget& target, CodeWorkers& workers) {
  const Kernels& kernels = cpu::kernels();
  const int64_t width = PackedProducts(g, kernels).width();
  for_each_vector(
      g, input, packed, workers,
      [&](int64_t channel, int64_t n, int64_t row, int64_t column,
          int64_t positions, const int32_t* sums) {
        target.store(
            kernels, channel, n, row, column, positions, sums, width, nullptr);
      });
}

template <typename Input>
void conv2d_codes(
    const Conv2dGeometry& g, const Input& input, const int8_t* packed,
    const int32_t* offset, int32_t* output, CodeWorkers& workers) {
  const Kernels& kernels = cpu::kernels();
  const int64_t width = PackedProducts(g, kernels).width();
  for_each_vector(
      g, input, packed, workers,
      [&](int64_t channel, int64_t n, int64_t row, int64_t column,
          int64_t positions, const int32_t* sums) {
        const int64_t used =
            std::min<int64_t>(g.out_channels - channel, kernels.int_lanes);
        for (int64_t k = 0; k < used; ++k) {
          int32_t* out = output +
              ((n * g.out_channels + channel + k) * g.out_h + row) * g.out_w +
              column;
          for (int64_t p = 0; p < positions; ++p)
            out[p] = sums[p * width + k] + offset[channel + k];
        }
      });
}

template void conv2d_codes(
    const Conv2dGeometry&, const CodeMap&, const int8_t*, const CodeTarget&,
    CodeWorkers&);
template void conv2d_codes(
    const Conv2dGeometry&, const Picture&, const int8_t*, const CodeTarget&,
    CodeWorkers&);
template void conv2d_codes(
    const Conv2dGeometry&, const CodeMap&, const int8_t*, const int32_t*,
    int32_t*, CodeWorkers&);
template void conv2d_codes(
    const Conv2dGeometry&, const Picture&, const int8_t*, const int32_t*,
    int32_t*, CodeWorkers&);

}  // namespace mmadder::cpu
