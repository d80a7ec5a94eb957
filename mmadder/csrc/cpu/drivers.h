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

// Weights in the order of the kernels of this processor, made once and used
// by many calls. Of a geometry only channels, kernel and groups count.
int64_t packed_weight_size(const Conv2dGeometry& geometry);  // floats
void pack_weight(const Conv2dGeometry& geometry, Form form,
                 const float* weight, float* packed);

// output = epilogue(-sum |input - weight|), NCHW.
//   packed: of pack_weight in max form, or null.
// Returns whether kAuto had to take the exact form; see forward.cpp.
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
