// torch.classes.mmadder.IntegerPlan: the steps of an integer network
// (docs/integer_format.md) on maps of codes that stay in the kernels' layout.
// What is wrong with a step is said when it is added; that no sum overflows is
// the file's affair.
#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <functional>
#include <mutex>
#include <vector>

#include "code_maps.h"

namespace mmadder {
namespace {

using Sizes = std::vector<int64_t>;

constexpr int64_t kPicture = -1;  // as the number of a map that is read
constexpr int64_t kMostOfT = (1 << 30) - 1;
constexpr int64_t kMostBias = (1 << 29) - (1 << cpu::kFraction);
constexpr int64_t kMostResidualMultiplier = (1 << 21) - 1;

at::Tensor dense(const char* name, const at::Tensor& tensor,
                 at::ScalarType type, int64_t numel) {
  TORCH_CHECK_VALUE(
      tensor.scalar_type() == type && tensor.device().is_cpu(),
      "IntegerPlan: ", name, " must be ", type, " on the CPU, got ",
      tensor.scalar_type(), " on ", tensor.device());
  TORCH_CHECK_VALUE(tensor.numel() == numel, "IntegerPlan: ", name, " has ",
                    tensor.numel(), " elements, expected ", numel);
  return tensor.contiguous();
}

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  TORCH_CHECK_VALUE(value >= low && value <= high, "IntegerPlan: ", name,
                    " must be from ", low, " to ", high, ", got ", value);
}

// A requantization with its vectors, for whole blocks of channels.
class Requantizer {
 public:
  // numbers: shift, residual multiplier, low, highest. acc lies between
  // `first` and `last`.
  Requantizer(
      const at::Tensor& multiplier, const at::Tensor& bias,
      const Sizes& numbers, const cpu::CodeMap& output, bool has_residual,
      int64_t residual_zero_point, int64_t first, int64_t last)
      : vectors_(
            at::zeros({5, output.blocks() * cpu::kBlockBytes}, at::kInt)) {
    TORCH_CHECK_VALUE(numbers.size() == 4, "IntegerPlan: ", numbers,
                      " are no shift, residual multiplier, low and highest");
    check_range("shift", numbers[0], 1, 62);
    const int64_t residual_multiplier = has_residual ? numbers[1] : 0;
    check_range("residual multiplier", residual_multiplier,
                -kMostResidualMultiplier, kMostResidualMultiplier);
    check_range("highest", numbers[3], 0, 255);
    check_range("low", numbers[2], 0, numbers[3]);
    shift_ = static_cast<int>(numbers[0]);
    residual_multiplier_ = static_cast<int32_t>(residual_multiplier);
    low_ = static_cast<int32_t>(numbers[2]);
    zero_point_ = output.zero_point;
    const auto m = dense("multiplier", multiplier, at::kInt, output.channels);
    const auto b = dense("bias", bias, at::kInt, output.channels);
    for (int64_t c = 0; c < output.channels; ++c) {
      const int64_t offset = b.const_data_ptr<int32_t>()[c];
      check_range("bias", offset, -kMostBias, kMostBias);
      at(0)[c] = m.const_data_ptr<int32_t>()[c];
      at(1)[c] = static_cast<int32_t>(
          offset + (1 << (cpu::kFraction - 1)) -
          residual_zero_point * residual_multiplier);
      at(2)[c] = static_cast<int32_t>(numbers[3]);
      find_limits(c, first, last);
    }
  }

  cpu::Requantization get(const int32_t* offset, int64_t filters) const {
    return {
        offset,
        at(0),
        limited_ ? at(3) : nullptr,
        limited_ ? at(4) : nullptr,
        at(1),
        at(2),
        shift_,
        static_cast<int32_t>(filters),
        residual_multiplier_,
        zero_point_,
        low_};
  }

 private:
  int32_t* at(int64_t row) const {
    return vectors_.mutable_data_ptr<int32_t>() + row * vectors_.size(1);
  }

  // t grows with acc or falls; it is clipped where acc has brought it to one
  // of its limits. One step further it still fits 32 bits.
  void find_limits(int64_t c, int64_t first, int64_t last) {
    using Wide = __int128;
    const int64_t multiplier = at(0)[c];
    const auto t = [&](int64_t acc) {
      return (Wide{acc} * multiplier + (Wide{1} << (shift_ - 1))) >> shift_;
    };
    constexpr int64_t least = std::numeric_limits<int32_t>::min();
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    at(3)[c] = static_cast<int32_t>(least);
    at(4)[c] = static_cast<int32_t>(most);
    const auto inside = [&](int64_t acc) {
      return t(acc) < kMostOfT && t(acc) > -kMostOfT - 1;
    };
    if (inside(first) && inside(last))
      return;
    limited_ = true;
    // The first acc of either sign whose t is at a limit.
    const auto first_outside = [&](int64_t end) {
      int64_t in = 0, out = end;
      if (inside(end))
        return end;
      while (std::abs(out - in) > 1)
        (inside((in + out) / 2) ? in : out) = (in + out) / 2;
      return out;
    };
    at(3)[c] = static_cast<int32_t>(first_outside(least));
    at(4)[c] = static_cast<int32_t>(first_outside(most));
  }

  at::Tensor vectors_;  // multiplier, bias, highest, least, most
  bool limited_ = false;
  int shift_ = 0;
  int32_t residual_multiplier_ = 0, zero_point_ = 0, low_ = 0;
};

class IntegerPlan : public torch::CustomClassHolder {
 public:
  // The size of the picture, (N, C, H, W), and a zero point per channel.
  IntegerPlan(Sizes picture, Sizes zero_points)
      : picture_(std::move(picture)) {
    TORCH_CHECK_VALUE(
        picture_.size() == 4 && zero_points.size() == size_t(picture_[1]),
        "IntegerPlan: a picture is (N, C, H, W) with C zero points, got ",
        picture_, " and ", zero_points);
    for (const auto zero_point : zero_points) {
      check_range("zero point", zero_point, 0, 255);
      zero_points_.push_back(static_cast<int32_t>(zero_point));
    }
  }

  // A map of zeros, (N, C, H, W), with a border for the padding of its
  // readers; returns its number.
  int64_t map(Sizes size, Sizes border, int64_t zero_point) {
    TORCH_CHECK_VALUE(
        size.size() == 4 && border.size() == 2,
        "IntegerPlan: a map is (N, C, H, W) with a border (h, w), got ", size,
        " and ", border);
    for (const auto& sizes : {size, border})
      for (const auto extent : sizes)
        TORCH_CHECK_VALUE(
            extent >= 0 && extent < (int64_t{1} << 31),
            "IntegerPlan: no map of ", size, " with border ", border);
    check_range("zero point", zero_point, 0, 255);
    const auto memory = at::zeros(
        {size[0], cpu::num_code_blocks(size[1]), size[2] + 2 * border[0],
         size[3] + 2 * border[1], cpu::kBlockBytes},
        at::kByte);
    for (int64_t b = 0; b < memory.size(1); ++b)
      memory.select(1, b)
          .narrow(-1, 0,
                  std::min<int64_t>(
                      size[1] - b * cpu::kBlockBytes, cpu::kBlockBytes))
          .fill_(zero_point);
    maps_.push_back(
        {memory.mutable_data_ptr<uint8_t>(), size[0], size[1], size[2],
         size[3], border[0], border[1], static_cast<int>(zero_point)});
    memory_.push_back(memory);
    return static_cast<int64_t>(maps_.size()) - 1;
  }

  // numbers: shift, multiplier of the map `residual` unless that is -1, low
  // and highest code.
  void adder(
      int64_t input, int64_t residual, int64_t output, Sizes weight_size,
      const at::Tensor& packed_weight, const at::Tensor& multiplier,
      const at::Tensor& bias, Sizes numbers, Sizes stride, Sizes padding,
      Sizes dilation, bool center) {
    const auto source = at(input);
    const auto g = conv2d_geometry(
        sizes(source), weight_size, stride, padding, dilation, 1);
    TORCH_CHECK_VALUE(
        source.border_h >= g.pad_h && source.border_w >= g.pad_w,
        "IntegerPlan: padding ", padding, " does not fit the input's border");
    const auto packed = dense(
        "packed_weight", packed_weight, at::kByte, cpu::packed_codes_size(g));
    const int64_t farthest = 255 * g.in_channels * g.taps();
    const int64_t others = center ? g.out_channels - 1 : 1;
    const auto target = this->target(
        residual, output, g, multiplier, bias, numbers, -others * farthest,
        center ? others * farthest : 0);
    add_step([=](Run&) {
      const auto requantization =
          target.requantizer.get(nullptr, g.out_channels);
      cpu::adder_conv2d_codes(
          g, source, packed.const_data_ptr<uint8_t>(), center,
          {requantization, target.residual(), target.output}, workers_);
    });
  }

  // The same of a convolution, whose input may be the picture, -1; weight_sums
  // are (C_out, C_in).
  void convolution(
      int64_t input, int64_t residual, int64_t output, Sizes weight_size,
      const at::Tensor& packed_weight, const at::Tensor& weight_sums,
      const at::Tensor& multiplier, const at::Tensor& bias, Sizes numbers,
      Sizes stride, Sizes padding, Sizes dilation) {
    const auto g = conv2d_geometry(
        source_size(input), weight_size, stride, padding, dilation, 1);
    const auto packed = products(packed_weight, g);
    const auto offset = this->offset(input, weight_sums, g);
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    const int64_t largest =
        std::min(255 * 128 * g.in_channels * g.taps(), most);
    const auto target = this->target(
        residual, output, g, multiplier, bias, numbers, -largest, largest);
    add_reading_step(input, [=](const auto& source, Run&) {
      const auto requantization =
          target.requantizer.get(offset.template const_data_ptr<int32_t>(), 1);
      cpu::conv2d_codes(
          g, source, packed.template const_data_ptr<int8_t>(),
          {requantization, target.residual(), target.output}, workers_);
    });
  }

  // Gives a convolution's sums and biases as the run's next output, int32.
  void accumulate(
      int64_t input, Sizes weight_size, const at::Tensor& packed_weight,
      const at::Tensor& weight_sums, const at::Tensor& bias, Sizes stride,
      Sizes padding, Sizes dilation) {
    const auto g = conv2d_geometry(
        source_size(input), weight_size, stride, padding, dilation, 1);
    const auto packed = products(packed_weight, g);
    const auto offset =
        this->offset(input, weight_sums, g).narrow(0, 0, g.out_channels) +
        dense("bias", bias, at::kInt, g.out_channels).view(-1);
    add_reading_step(input, [=](const auto& source, Run& run) {
      const auto output =
          at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, at::kInt);
      cpu::conv2d_codes(
          g, source, packed.template const_data_ptr<int8_t>(),
          offset.template const_data_ptr<int32_t>(),
          output.mutable_data_ptr<int32_t>(), workers_);
      run.outputs.push_back(output);
    });
  }

  // pool: kernel, stride and padding, each (h, w).
  void max_pool(int64_t input, Sizes pool, int64_t output) {
    const auto source = at(input), target = at(output);
    TORCH_CHECK_VALUE(
        pool.size() == 6,
        "IntegerPlan: pool is kernel, stride and padding, got ", pool);
    for (int i = 0; i < 2; ++i)
      TORCH_CHECK_VALUE(
          pool[i] > 0 && pool[2 + i] > 0 && pool[4 + i] >= 0 &&
              2 * pool[4 + i] <= pool[i],
          "IntegerPlan: no pooling with kernel, stride and padding ", pool);
    const cpu::Window w{pool[0], pool[1], pool[2], pool[3], pool[4], pool[5]};
    check_sizes(
        "pooled output", target,
        {source.batch, source.channels,
         output_size(source.height, w.kernel_h, w.stride_h, w.pad_h, 1),
         output_size(source.width, w.kernel_w, w.stride_w, w.pad_w, 1)});
    add_step([=](Run&) { cpu::max_pool_codes(source, w, target); });
  }

  // numbers: multiplier, shift, low and highest code.
  void average(int64_t input, int64_t output, Sizes numbers) {
    const auto source = at(input), target = at(output);
    check_sizes("average", target, {source.batch, source.channels, 1, 1});
    TORCH_CHECK_VALUE(numbers.size() == 4, "IntegerPlan: ", numbers,
                      " are no multiplier, shift, low and highest");
    check_range("multiplier", numbers[0], 0, (int64_t{1} << 31) - 1);
    check_range("shift", numbers[1], 1, 40);
    check_range("highest", numbers[3], 0, 255);
    check_range("low", numbers[2], 0, numbers[3]);
    check_range(
        "number of positions", source.height * source.width, 1, 1 << 20);
    const cpu::Average average{numbers[0], numbers[1], numbers[2], numbers[3]};
    add_step([=](Run&) { cpu::average_codes(source, average, target); });
  }

  // Of a and of b at nearest positions. numbers: multipliers of a and b, low
  // and highest code.
  void sum(int64_t a, int64_t b, int64_t output, Sizes numbers) {
    const auto left = at(a), right = at(b), target = at(output);
    check_sizes("first summand", left, sizes(target));
    check_sizes("second summand", right,
                {target.batch, target.channels, right.height, right.width});
    TORCH_CHECK_VALUE(right.height > 0 && right.width > 0,
                      "IntegerPlan: second summand is empty");
    TORCH_CHECK_VALUE(numbers.size() == 4, "IntegerPlan: ", numbers,
                      " are no two multipliers, low and highest");
    for (int i = 0; i < 2; ++i)
      check_range("multiplier", numbers[i], -kMostResidualMultiplier,
                  kMostResidualMultiplier);
    check_range("highest", numbers[3], 0, 255);
    check_range("low", numbers[2], 0, numbers[3]);
    Sizes rows, columns;
    for (int64_t i = 0; i < target.height; ++i)
      rows.push_back(i * right.height / target.height);
    for (int64_t i = 0; i < target.width; ++i)
      columns.push_back(i * right.width / target.width);
    const auto highest =
        at::zeros({target.blocks() * cpu::kBlockBytes}, at::kInt);
    highest.narrow(0, 0, target.channels).fill_(numbers[3]);
    const int64_t offset = (1 << (cpu::kFraction - 1)) -
        left.zero_point * numbers[0] - right.zero_point * numbers[1];
    const cpu::CodeSum sum{
        static_cast<int32_t>(numbers[0]), static_cast<int32_t>(numbers[1]),
        static_cast<int32_t>(offset),     target.zero_point,
        static_cast<int32_t>(numbers[2]), highest.const_data_ptr<int32_t>()};
    add_step([=, keep = highest](Run&) {
      cpu::add_codes(left, right, rows.data(), columns.data(), sum, target);
    });
  }

  // Gives a map as the run's next output, uint8, NCHW.
  void write(int64_t input) {
    const auto source = at(input);
    add_step([=](Run& run) {
      const auto output = at::empty(sizes(source), at::kByte);
      cpu::write_codes(source, output.mutable_data_ptr<uint8_t>());
      run.outputs.push_back(output);
    });
  }

  int64_t size() const { return static_cast<int64_t>(steps_.size()); }

  // Runs the steps from `first` up to `last`, one run at a time.
  std::vector<at::Tensor> run(
      const at::Tensor& picture, int64_t first, int64_t last) {
    TORCH_CHECK_VALUE(
        0 <= first && first <= last && last <= size(),
        "IntegerPlan: no steps ", first, " to ", last, " of ", size());
    TORCH_CHECK_VALUE(
        picture.scalar_type() == at::kByte && picture.device().is_cpu(),
        "IntegerPlan: a picture must be uint8 on the CPU, got ",
        picture.scalar_type(), " on ", picture.device());
    TORCH_CHECK_VALUE(
        picture.sizes() == at::IntArrayRef(picture_),
        "IntegerPlan: the picture has shape ", picture.sizes(),
        ", planned was ", picture_);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto x = picture.contiguous();
    Run run{{x.const_data_ptr<uint8_t>(), zero_points_.data()}};
    for (int64_t i = first; i < last; ++i)
      steps_[i](run);
    return run.outputs;
  }

 private:
  struct Run {
    cpu::Picture picture;
    std::vector<at::Tensor> outputs{};
  };

  struct Target {
    Requantizer requantizer;
    bool has_residual;
    cpu::CodeMap residual_map, output;

    const cpu::CodeMap* residual() const {
      return has_residual ? &residual_map : nullptr;
    }
  };

  static Sizes sizes(const cpu::CodeMap& map) {
    return {map.batch, map.channels, map.height, map.width};
  }
  Sizes source_size(int64_t input) const {
    return input == kPicture ? picture_ : sizes(at(input));
  }

  static void check_sizes(
      const char* name, const cpu::CodeMap& map, const Sizes& expected) {
    TORCH_CHECK_VALUE(sizes(map) == expected, "IntegerPlan: ", name,
                      " is a map of ", sizes(map), ", expected ", expected);
  }

  Target target(
      int64_t residual, int64_t output, const Conv2dGeometry& g,
      const at::Tensor& multiplier, const at::Tensor& bias,
      const Sizes& numbers, int64_t first, int64_t last) const {
    const auto map = at(output);
    check_sizes("output", map, {g.batch, g.out_channels, g.out_h, g.out_w});
    const auto residual_map = residual < 0 ? map : at(residual);
    check_sizes("residual", residual_map, sizes(map));
    return {Requantizer(multiplier, bias, numbers, map, residual >= 0,
                        residual_map.zero_point, first, last),
            residual >= 0, residual_map, map};
  }

  static at::Tensor products(
      const at::Tensor& packed_weight, const Conv2dGeometry& g) {
    return dense("packed_weight", packed_weight, at::kChar,
                 cpu::packed_products_size(g));
  }

  // What the input's zero points add to a convolution's sums, for whole
  // blocks of channels.
  at::Tensor offset(int64_t input, const at::Tensor& weight_sums,
                    const Conv2dGeometry& g) const {
    const auto sums = dense(
        "weight_sums", weight_sums, at::kInt, g.out_channels * g.in_channels);
    const auto offset = at::zeros(
        {cpu::num_code_blocks(g.out_channels) * cpu::kBlockBytes}, at::kInt);
    const auto* row = sums.const_data_ptr<int32_t>();
    for (int64_t o = 0; o < g.out_channels; ++o, row += g.in_channels) {
      int64_t sum = 0;
      for (int64_t c = 0; c < g.in_channels; ++c)
        sum -= int64_t{row[c]} *
            (input == kPicture ? zero_points_[c] : at(input).zero_point);
      offset.mutable_data_ptr<int32_t>()[o] = static_cast<int32_t>(sum);
    }
    return offset;
  }

  cpu::CodeMap at(int64_t map) const {
    TORCH_CHECK_VALUE(map >= 0 && map < static_cast<int64_t>(maps_.size()),
                      "IntegerPlan: no map ", map);
    return maps_[map];
  }

  // step(picture or map, run)
  template <typename Step>
  void add_reading_step(int64_t input, Step step) {
    if (input == kPicture)
      add_step([=](Run& run) { step(run.picture, run); });
    else
      add_step([=, source = at(input)](Run& run) { step(source, run); });
  }

  void add_step(std::function<void(Run&)> step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    steps_.push_back(std::move(step));
  }

  Sizes picture_;
  std::vector<int32_t> zero_points_;
  std::vector<cpu::CodeMap> maps_;
  std::vector<at::Tensor> memory_;
  std::vector<std::function<void(Run&)>> steps_;
  cpu::CodeWorkers workers_;
  std::mutex mutex_;
};

at::Tensor conv2d_int8_pack_weight(
    const at::Tensor& weight, at::IntArrayRef dilation) {
  TORCH_CHECK_VALUE(
      weight.dim() == 4 && weight.scalar_type() == at::kChar,
      "conv2d_int8_pack_weight: weight must be int8, (C_out, C_in, K_h, K_w), "
      "got ",
      weight.scalar_type(), " of ", weight.sizes());
  TORCH_CHECK_VALUE(
      dilation.size() == 2,
      "conv2d_int8_pack_weight: dilation must be 2 numbers, got ", dilation);
  const int64_t rows = (weight.size(2) - 1) * dilation[0] + 1;
  const int64_t columns = (weight.size(3) - 1) * dilation[1] + 1;
  const auto g = conv2d_geometry(
      {1, weight.size(1), rows, columns}, weight.sizes(), {1, 1}, {0, 0},
      dilation, 1);
  const auto packed = at::empty({cpu::packed_products_size(g)}, at::kChar);
  cpu::pack_products(g, weight.contiguous().const_data_ptr<int8_t>(),
                     packed.mutable_data_ptr<int8_t>());
  return packed;
}

TORCH_LIBRARY_FRAGMENT(mmadder, m) {
  m.class_<IntegerPlan>("IntegerPlan")
      .def(torch::init<Sizes, Sizes>())
      .def("map", &IntegerPlan::map)
      .def("adder", &IntegerPlan::adder)
      .def("convolution", &IntegerPlan::convolution)
      .def("accumulate", &IntegerPlan::accumulate)
      .def("max_pool", &IntegerPlan::max_pool)
      .def("average", &IntegerPlan::average)
      .def("sum", &IntegerPlan::sum)
      .def("write", &IntegerPlan::write)
      .def("size", &IntegerPlan::size)
      .def("run", &IntegerPlan::run);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CPU, m) {
  m.impl("conv2d_int8_pack_weight", conv2d_int8_pack_weight);
}

}  // namespace mmadder
