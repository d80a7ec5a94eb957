// torch.classes.mmadder.Plan: steps of inference on maps that stay in the
// kernels' layout from step to step. What is wrong with a step is said when it
// is added; to run it then needs no more than its input's sizes checked.
#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "blocked_maps.h"
#include "glue.h"

namespace mmadder {
namespace {

using Sizes = std::vector<int64_t>;

Sizes padded(const Conv2dGeometry& g) { return {g.pad_h, g.pad_w}; }

at::Tensor floats(const char* name, const at::Tensor& tensor, int64_t numel) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device().is_cpu(),
              "Plan: ", name, " must be float32 on the CPU, got ",
              tensor.scalar_type(), " on ", tensor.device());
  TORCH_CHECK_VALUE(tensor.numel() == numel, "Plan: ", name, " has ",
                    tensor.numel(), " elements, expected ", numel);
  return tensor.contiguous();
}

class Plan : public torch::CustomClassHolder {
 public:
  // A map of zeros, (N, C, H, W), with a border for the padding of its
  // readers; returns its number.
  int64_t map(Sizes size, Sizes border) {
    TORCH_CHECK_VALUE(
        size.size() == 4 && border.size() == 2,
        "Plan: a map is (N, C, H, W) with a border (h, w), got ", size,
        " and ", border);
    for (const auto& sizes : {size, border})
      for (const auto extent : sizes)
        TORCH_CHECK_VALUE(extent >= 0 && extent < (int64_t{1} << 31),
                          "Plan: no map of ", size, " with border ", border);
    const auto memory = at::zeros(
        {size[0], cpu::num_blocks(size[1]), size[2] + 2 * border[0],
         size[3] + 2 * border[1], cpu::kBlock},
        at::kFloat);  // whatever the default is
    maps_.push_back({memory.mutable_data_ptr<float>(), size[0], size[1],
                     size[2], size[3], border[0], border[1]});
    memory_.push_back(memory);
    return static_cast<int64_t>(maps_.size()) - 1;
  }

  // Takes the run's next input, (N, C, H, W), into a map.
  void read(int64_t output) {
    const auto target = at(output);
    add_step([=](Run& run) {
      const auto x = readable(run.take(sizes(target)));
      cpu::read_map(images(x), target);
    });
  }

  // relu(convolution) of the run's next input, pooled, into a map; done by
  // the library, with channels as neighbours.
  void stem(
      Sizes input, const at::Tensor& weight,
      const std::optional<at::Tensor>& bias, Sizes stride, Sizes padding,
      Sizes dilation, int64_t groups, bool relu, Sizes pool, int64_t output) {
    const auto target = at(output);
    const auto g = conv2d_geometry(
        input, weight.sizes(), stride, padding, dilation, groups);
    const auto window = this->window(pool);
    TORCH_CHECK_VALUE(
        g.out_channels % cpu::kBlock == 0, "Plan: a stem has a multiple of ",
        cpu::kBlock, " channels, got ", g.out_channels);
    check_pooled({g.batch, g.out_channels, g.out_h, g.out_w}, window, target);
    const auto layout = at::MemoryFormat::ChannelsLast;
    const auto w = weight.contiguous(layout);
    add_step([=](Run& run) {
      const auto y =
          at::conv2d(run.take(input).contiguous(layout), w, bias, stride,
                     padding, dilation, groups)
              .contiguous(layout);
      cpu::max_pool_images(
          {y.const_data_ptr<float>(), g.out_h * g.out_w * g.out_channels, 1,
           g.out_w * g.out_channels, g.out_channels},
          g.out_h, g.out_w, window, relu, target);
    });
  }

  // epilogue(adder_conv2d), with the map `residual` unless that is -1.
  void adder(
      int64_t input, int64_t residual, int64_t output, Sizes weight_size,
      const at::Tensor& packed_weight, const at::Tensor& mean,
      const at::Tensor& scale, const at::Tensor& bias, bool relu, Sizes stride,
      Sizes padding, Sizes dilation, const std::string& mode, bool center) {
    const auto source = at(input), target = at(output);
    const auto g = conv2d_geometry(
        sizes(source), weight_size, stride, padding, dilation, 1);
    check_center(g, center);
    check_sizes("output", target, {g.batch, g.out_channels, g.out_h, g.out_w});
    TORCH_CHECK_VALUE(
        g.stride_w <= cpu::kMaxColumnStep || g.out_w == 1,
        "Plan: no kernel for a horizontal stride of ", g.stride_w);
    TORCH_CHECK_VALUE(
        source.border_h >= g.pad_h && source.border_w >= g.pad_w,
        "Plan: padding ", padded(g), " does not fit the input's border");
    std::optional<cpu::BlockedMap> shortcut;
    if (residual >= 0)
      shortcut = at(residual),
      check_sizes("residual", *shortcut, sizes(target));
    const auto packed =
        floats("packed_weight", packed_weight, cpu::packed_weight_size(g));
    // For whole blocks of channels.
    const auto vectors =
        at::zeros({3, target.blocks() * cpu::kBlock}, at::kFloat);
    int64_t row = 0;
    for (const auto* vector : {&mean, &scale, &bias})
      vectors[row++]
          .narrow(0, 0, g.out_channels)
          .copy_(floats("epilogue", *vector, g.out_channels));
    const auto form = parse_mode(mode);
    add_step([=](Run&) {
      cpu::Epilogue epilogue;
      epilogue.mean = vectors.const_data_ptr<float>();
      epilogue.scale = epilogue.mean + vectors.size(1);
      epilogue.bias = epilogue.scale + vectors.size(1);
      epilogue.relu = relu;
      epilogue.center = center;
      if (target.batch > 0 &&
          cpu::adder_conv2d_blocked(
              g, form, source, packed.const_data_ptr<float>(), epilogue,
              shortcut ? &*shortcut : nullptr, target, workers_))
        warn_exact();
    });
  }

  // pool: kernel, stride and padding, each (h, w).
  void max_pool(int64_t input, Sizes pool, int64_t output) {
    const auto source = at(input), target = at(output);
    const auto window = this->window(pool);
    check_pooled(sizes(source), window, target);
    add_step([=](Run&) { cpu::max_pool_blocked(source, window, target); });
  }

  // output[row][column] = a[row][column] + b[rows[row]][columns[column]].
  void add(int64_t a, int64_t b, Sizes rows, Sizes columns, int64_t output) {
    const auto left = at(a), right = at(b), target = at(output);
    check_sizes("first summand", left, sizes(target));
    check_sizes("second summand", right,
                {target.batch, target.channels, right.height, right.width});
    check_index(rows, target.height, right.height);
    check_index(columns, target.width, right.width);
    add_step([=](Run&) {
      cpu::add_blocked(left, right, rows.data(), columns.data(), target);
    });
  }

  // Gives a map as the run's next output, NCHW.
  void write(int64_t input) {
    const auto source = at(input);
    add_step([=](Run& run) {
      const auto output = at::empty(sizes(source), at::kFloat);
      cpu::write_map(source, output.mutable_data_ptr<float>());
      run.outputs.push_back(output);
    });
  }

  int64_t size() const { return static_cast<int64_t>(steps_.size()); }

  // Runs the steps from `first` up to `last`, one run at a time.
  std::vector<at::Tensor> run(
      std::vector<at::Tensor> inputs, int64_t first, int64_t last) {
    TORCH_CHECK_VALUE(0 <= first && first <= last && last <= size(),
                      "Plan: no steps ", first, " to ", last, " of ", size());
    const std::lock_guard<std::mutex> lock(mutex_);
    at::NoGradGuard no_grad;
    Run run{inputs};
    for (int64_t i = first; i < last; ++i)
      steps_[i](run);
    return run.outputs;
  }

 private:
  struct Run {
    const std::vector<at::Tensor>& inputs;
    std::vector<at::Tensor> outputs{};
    size_t taken = 0;

    const at::Tensor& take(at::IntArrayRef sizes) {
      TORCH_CHECK_VALUE(taken < inputs.size(), "Plan: an input is missing");
      const auto& input = inputs[taken++];
      TORCH_CHECK(input.scalar_type() == at::kFloat && input.device().is_cpu(),
                  "Plan: input must be float32 on the CPU, got ",
                  input.scalar_type(), " on ", input.device());
      TORCH_CHECK_VALUE(input.sizes() == sizes, "Plan: input has shape ",
                        input.sizes(), ", planned was ", sizes);
      return input;
    }
  };

  static Sizes sizes(const cpu::BlockedMap& map) {
    return {map.batch, map.channels, map.height, map.width};
  }

  static void check_sizes(
      const char* name, const cpu::BlockedMap& map, const Sizes& expected) {
    TORCH_CHECK_VALUE(sizes(map) == expected, "Plan: ", name, " is a map of ",
                      sizes(map), ", expected ", expected);
  }

  static void check_index(const Sizes& index, int64_t count, int64_t limit) {
    TORCH_CHECK_VALUE(static_cast<int64_t>(index.size()) == count,
                      "Plan: ", index.size(), " indices for ", count);
    for (const auto i : index)
      TORCH_CHECK_VALUE(
          i >= 0 && i < limit, "Plan: index ", i, " outside of ", limit);
  }

  static cpu::Window window(const Sizes& pool) {
    TORCH_CHECK_VALUE(pool.size() == 6,
                      "Plan: pool is kernel, stride and padding, got ", pool);
    for (int i = 0; i < 2; ++i)
      TORCH_CHECK_VALUE(
          pool[i] > 0 && pool[2 + i] > 0 && pool[4 + i] >= 0 &&
              2 * pool[4 + i] <= pool[i],
          "Plan: no pooling with kernel, stride and padding ", pool);
    return {pool[0], pool[1], pool[2], pool[3], pool[4], pool[5]};
  }

  static void check_pooled(
      const Sizes& input, const cpu::Window& w,
      const cpu::BlockedMap& output) {
    const Sizes expected{
        input[0], input[1],
        output_size(input[2], w.kernel_h, w.stride_h, w.pad_h, 1),
        output_size(input[3], w.kernel_w, w.stride_w, w.pad_w, 1)};
    check_sizes("pooled output", output, expected);
  }

  cpu::BlockedMap at(int64_t map) const {
    TORCH_CHECK_VALUE(map >= 0 && map < static_cast<int64_t>(maps_.size()),
                      "Plan: no map ", map);
    return maps_[map];
  }

  void add_step(std::function<void(Run&)> step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    steps_.push_back(std::move(step));
  }

  std::vector<cpu::BlockedMap> maps_;
  std::vector<at::Tensor> memory_;
  std::vector<std::function<void(Run&)>> steps_;
  cpu::BlockedWorkers workers_;
  std::mutex mutex_;
};

TORCH_LIBRARY_FRAGMENT(mmadder, m) {
  m.class_<Plan>("Plan")
      .def(torch::init<>())
      .def("map", &Plan::map)
      .def("read", &Plan::read)
      .def("stem", &Plan::stem)
      .def("adder", &Plan::adder)
      .def("max_pool", &Plan::max_pool)
      .def("add", &Plan::add)
      .def("write", &Plan::write)
      .def("size", &Plan::size)
      .def("run", &Plan::run);
}

}  // namespace
}  // namespace mmadder
