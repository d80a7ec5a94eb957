// The convolutions over raw memory.
#pragma once

#include "../geometry.h"
#include "kernels.h"

namespace mmadder::cpu {

// A float32 image batch; either columns or channels are neighbours.
struct Images {
  const float* data;
  int64_t batch_stride, channel_stride, row_stride, column_stride;  // floats
};

// A 1x1 convolution without stride or padding sees one long row, if the
// images lie in memory so.
template <typename... Images>
Conv2dGeometry flattened(Conv2dGeometry g, const Images&... images) {
  const auto has_dense_rows = [&](const auto& i) {
    return i.row_stride == g.in_w * i.column_stride;
  };
  if (g.taps() == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 &&
      g.pad_w == 0 && (has_dense_rows(images) && ...)) {
    g.in_w = g.out_w = g.in_h * g.in_w;
    g.in_h = g.out_h = 1;
  }
  return g;
}

enum class Mode { kAuto, kExact, kMax };

// Shorter distances can be close to zero by chance, and gain little.
constexpr int64_t kFewestTermsOfMax = 16;

// Calls run(form, check) as the mode asks: kAuto takes the max form, looks at
// every distance on its way to the output and starts again in the exact form
// if one is too small beside its filter's sum |w - c| for the max form to
// resolve it, or is not a number: the bounds are in packed_weight.cpp. Returns
// whether that happened.
template <typename Run>
bool in_form_of(Mode mode, const Conv2dGeometry& g, const Run& run) {
  if (mode == Mode::kAuto &&
      g.in_channels_per_group() * g.taps() < kFewestTermsOfMax)
    mode = Mode::kExact;
  if (mode != Mode::kExact && run(kMax, mode == Mode::kAuto))
    return false;
  run(kExact, false);
  return mode == Mode::kAuto;
}

// Weights in the order of the kernels of this processor, made once and used
// by many calls, in max form. Of a geometry only channels, kernel and groups
// count. Not shifted, they do for both forms (packed_weight.h).
int64_t packed_weight_size(const Conv2dGeometry& geometry);  // floats
void pack_weight(const Conv2dGeometry& geometry, bool shifted,
                 const float* weight, float* packed);

// output = epilogue(-sum |input - weight|), NCHW.
//   packed: of pack_weight, shifted, or null.
// Returns whether kAuto had to take the exact form.
bool adder_conv2d_f32(
    const Conv2dGeometry& geometry, Mode mode, const Images& input,
    const float* weight, const float* packed, const Epilogue& epilogue,
    float* output);

// 8-bit codes of input and weight alike: value = scale * (code - zero_point).
struct Codes {
  float scale;
  int zero_point;
};

// Weight codes in the order of the kernels of this processor.
int64_t packed_codes_size(const Conv2dGeometry& geometry);  // bytes
void pack_codes(
    const Conv2dGeometry& geometry, const uint8_t* weight, uint8_t* packed);

// output = epilogue(-scale * sum |input code - weight code|), NCHW; a float
// input is rounded to codes first.
template <typename Input>  // uint8_t or float
void adder_conv2d_u8(
    const Conv2dGeometry& geometry, const Input* input,
    const uint8_t* packed_weight, const Codes& codes, const Epilogue& epilogue,
    float* output);

// grad_input = sum grad_output * clip(weight - input, -1, 1), or sign; NCHW.
void adder_conv2d_input_grad_f32(
    const Conv2dGeometry& geometry, const Images& grad_output,
    const Images& input, const float* weight, InputGradient slope,
    float* grad_input);

// The same two in double precision, by plain loops over NCHW memory.
void adder_conv2d_f64(
    const Conv2dGeometry& geometry, const double* input, const double* weight,
    double* output);
void adder_conv2d_input_grad_f64(
    const Conv2dGeometry& geometry, const double* grad_output,
    const double* input, const double* weight, InputGradient slope,
    double* grad_input);

}  // namespace mmadder::cpu
