// Runs the CUDA kernels in emulation on problems read from a file; see
// emulation.py, which writes it and compares the results.
//   emulate PROBLEMS RESULTS
//   emulate far
// A problem: 23 int32 (below), then input, weight and grad_output as float64.
// Its results: two float64 that tell the kernels used, output and grad_input.
// A fused one has mean, scale, bias and residual instead of grad_output, and
// as its results the kernels and the output.
#include <sys/mman.h>

#include "dispatch.h"

using namespace mmadder::cuda;

namespace {

struct Problem {
  int dtype, form, multiprocessors, order, seed;
  int batch, in_channels, in_h, in_w, out_channels, kernel_h, kernel_w;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
  int center, fused, shortcut, relu;

  Shape shape() const {
    // clang-format off
    Shape s{batch, in_channels, in_h, in_w, out_channels, 0, 0, kernel_h,
            kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h,
            dilation_w, groups, in_channels / groups, out_channels / groups};
    // clang-format on
    s.out_h = (in_h + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) / stride_h;
    s.out_w = (in_w + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) / stride_w;
    s.out_h += 1, s.out_w += 1;
    return s;
  }
};

template <typename T>
T from_double(double v) {
  return convert<T>((float)v);
}
template <>
double from_double<double>(double v) {
  return v;
}
double to_double(double v) { return v; }
template <typename T>
double to_double(T v) {
  return convert<float>(v);
}

// A tensor of exactly its size on the heap, for AddressSanitizer; results
// start as NaN.
template <typename T>
struct Buffer {
  T* data;
  size_t n;

  explicit Buffer(size_t n) : data((T*)std::malloc(n * sizeof(T))), n(n) {
    std::memset(data, 0xFF, n * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data); }

  void read(FILE* file) {
    std::vector<double> values(n);
    if (std::fread(values.data(), sizeof(double), n, file) != n)
      emulation::fail("the file of problems is too short");
    for (size_t i = 0; i < n; ++i)
      data[i] = from_double<T>(values[i]);
  }
  void write(FILE* file) const {
    for (size_t i = 0; i < n; ++i) {
      const double value = to_double(data[i]);
      std::fwrite(&value, sizeof value, 1, file);
    }
  }
};

// Tile rows, and whether taps are whole, halves paired, the depth split, and
// the result finished by a second kernel.
double describe(const Plan& plan) {
  return plan.direct
      ? 0
      : plan.tile.rows + 1000 * plan.whole_taps + 10000 * plan.half_pairs +
          100000 * (plan.blocks.splits > 1) +
          1000000 * (plan.partial_numel > 0);
}

size_t weight_numel(const Shape& s) {
  return (size_t)s.out_channels * s.in_per_group * s.taps();
}

void run_fused(const Problem& p, FILE* in, FILE* out) {
  const Shape s = p.shape();
  Buffer<float> input(s.in_numel()), weight(weight_numel(s));
  Buffer<float> mean(s.out_channels), scale(s.out_channels);
  Buffer<float> bias(s.out_channels), residual(s.out_numel());
  Buffer<float> output(s.out_numel());
  input.read(in), weight.read(in);
  mean.read(in), scale.read(in), bias.read(in), residual.read(in);
  const emulation::Launcher launch;
  const PackedShape packing = packed_forward(s);
  Buffer<float> packed(packing.numel(s.groups));
  if (packed.n > 0)
    run_pack(launch, s, packing, (const float*)weight.data, packed.data);
  const Plan plan = plan_fused(s, p.multiprocessors, p.center);
  Buffer<float> partial(plan.partial_numel);
  dispatch_forward(
      launch, plan, s,
      FusedArguments{
          input.data,
          weight.data,
          packed.data,
          partial.n ? partial.data : nullptr,
          output.data,
          {mean.data, scale.data, bias.data,
           p.shortcut ? residual.data : nullptr, p.relu != 0, p.center != 0}});
  const double kernels = describe(plan);
  std::fwrite(&kernels, sizeof kernels, 1, out);
  output.write(out);
}

template <typename T>
void run(const Problem& p, FILE* in, FILE* out) {
  const Shape s = p.shape();
  Buffer<T> input(s.in_numel());
  Buffer<T> weight(weight_numel(s));
  Buffer<T> grad_output(s.out_numel()), output(s.out_numel());
  Buffer<T> grad_input(s.in_numel());
  input.read(in), weight.read(in), grad_output.read(in);
  const emulation::Launcher launch;

  const Plan forward =
      plan_forward(s, (DType)p.dtype, p.multiprocessors, p.center);
  {
    Buffer<char> packed(forward.packed_bytes);
    Buffer<float> partial(forward.partial_numel);
    dispatch_pack(launch, forward, s, (const T*)weight.data, packed.data);
    dispatch_forward(
        launch, forward, s,
        ForwardArguments<T, NoEpilogue>{
            input.data,
            weight.data,
            packed.data,
            partial.n ? partial.data : nullptr,
            output.data,
            {p.center != 0}});
  }
  const Plan backward = plan_input_grad(s, (DType)p.dtype, p.multiprocessors);
  {
    Buffer<char> packed(backward.packed_bytes);
    Buffer<float> partial(backward.partial_numel);
    dispatch_input_grad<T>(
        launch, backward, s, (InputGradient)p.form,
        {grad_output.data, input.data, weight.data, packed.data,
         partial.n ? partial.data : nullptr, grad_input.data});
  }
  const double plans[] = {describe(forward), describe(backward)};
  std::fwrite(plans, sizeof plans, 1, out);
  output.write(out), grad_input.write(out);
}

// Memory that is only taken where it is touched.
float* reserve(int64_t n) {
  void* data = mmap(nullptr, n * sizeof(float), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED)
    emulation::fail("no address space");
  return static_cast<float*>(data);
}

// The last image of a batch of more than 2^31 elements against the same image
// alone: no offset may be cut to 32 bits.
void run_far(int filters) {
  constexpr int kChannels = 32, kSize = 8, kBatch = 1200000;
  constexpr int64_t kImage = kChannels * kSize * kSize;
  const auto shape = [&](int batch) {
    // clang-format off
    return Shape{batch, kChannels, kSize, kSize, filters, kSize, kSize, 3, 3,
                 1, 1, 1, 1, 1, 1, 1, kChannels, filters};
    // clang-format on
  };
  const Shape one = shape(1), many = shape(kBatch);
  std::vector<float> weight(filters * kChannels * 9);
  std::vector<float> packed(1 << 20);
  float* const input = reserve(many.in_numel());
  float* const grad_input = reserve(many.in_numel());
  float* const output = reserve(many.out_numel());
  float* const grad_output = reserve(many.out_numel());
  float* const fused = reserve(many.out_numel());
  std::normal_distribution<float> normal;
  const auto fill = [&](float* data, int64_t n) {
    std::generate_n(data, n, [&] { return normal(emulation::random_order); });
  };
  fill(weight.data(), weight.size());
  float* const x = input + many.in_numel() - kImage;
  float* const g = grad_output + many.out_numel() - one.out_numel();
  fill(x, kImage), fill(g, one.out_numel());
  std::vector<float> y(one.out_numel()), dx(kImage), z(one.out_numel());
  const std::vector<float> ones(filters, 1.f);

  // g serves as shortcut, too.
  const auto check =
      [&](const Shape& s, const float* x, const float* g, float* y, float* dx,
          float* z, emulation::Launcher launch) {
        const Plan forward = plan_forward(s, DType::kFloat, 1, false);
        const Plan backward = plan_input_grad(s, DType::kFloat, 1);
        if (forward.direct || backward.direct || forward.blocks.splits > 1 ||
            forward.packed_bytes > (int64_t)packed.size() * 4)
          emulation::fail("not the kernels that were meant");
        launch.most = 3 * forward.blocks.row_tiles;
        emulation::Launcher pack;
        const auto both =
            [&](auto kernel, unsigned blocks, int threads, auto... arguments) {
              (threads == kThreads ? pack : launch)(
                  kernel, blocks, threads, arguments...);
            };
        dispatch_pack(
            pack, forward, s, (const float*)weight.data(), packed.data());
        dispatch_forward(
            launch, forward, s,
            ForwardArguments<float, NoEpilogue>{
                x, weight.data(), packed.data(), nullptr, y, {false}});
        dispatch_input_grad<float>(
            both, backward, s, InputGradient::kHardtanh,
            {g, x, weight.data(), packed.data(), nullptr, dx});
        dispatch_pack(
            pack, forward, s, (const float*)weight.data(), packed.data());
        dispatch_forward(
            launch, plan_fused(s, 1, true), s,
            FusedArguments{
                x,
                weight.data(),
                packed.data(),
                nullptr,
                z,
                {ones.data(), ones.data(), ones.data(), g, true, true}});
      };
  check(one, x, g, y.data(), dx.data(), z.data(), {});
  check(many, input, grad_output, output, grad_input, fused, {});
  if (!std::equal(
          y.begin(), y.end(), output + many.out_numel() - one.out_numel()) ||
      !std::equal(
          dx.begin(), dx.end(), grad_input + many.in_numel() - kImage) ||
      !std::equal(z.begin(), z.end(), fused + many.out_numel() - z.size()))
    emulation::fail("offsets beyond 2^31 elements are wrong");
  munmap(input, many.in_numel() * 4), munmap(grad_input, many.in_numel() * 4);
  munmap(output, many.out_numel() * 4);
  munmap(grad_output, many.out_numel() * 4);
  munmap(fused, many.out_numel() * 4);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "far") == 0) {
    for (const int filters : {32, 64, 128})
      run_far(filters);
    return 0;
  }
  FILE* in = argc == 3 ? std::fopen(argv[1], "rb") : nullptr;
  FILE* out = argc == 3 ? std::fopen(argv[2], "wb") : nullptr;
  if (in == nullptr || out == nullptr)
    emulation::fail("usage: emulate PROBLEMS RESULTS");
  Problem p;
  while (std::fread(&p, sizeof p, 1, in) == 1) {
    emulation::order = (emulation::Order)p.order;
    emulation::random_order.seed(p.seed);
    if (p.fused) {
      run_fused(p, in, out);
      continue;
    }
    switch ((DType)p.dtype) {
      case DType::kFloat: run<float>(p, in, out); break;
      case DType::kHalf: run<__half>(p, in, out); break;
      case DType::kBFloat16: run<__nv_bfloat16>(p, in, out); break;
      case DType::kDouble: run<double>(p, in, out); break;
    }
  }
  std::fclose(out);
}
