// The float32 convolutions over raw NCHW memory.
#pragma once

#include "../geometry.h"
#include "kernels.h"

namespace mmadder::cpu {

// output = -sum |input - weight|
void adder_conv2d_f32(
    const Conv2dGeometry& geometry, const float* input, const float* weight,
    float* output);

// grad_input = sum grad_output * clip(weight - input, -1, 1), or sign
void adder_conv2d_input_grad_f32(
    const Conv2dGeometry& geometry, const float* grad_output,
    const float* input, const float* weight, InputGradient form,
    float* grad_input);

// The same two in double precision, by plain loops.
void adder_conv2d_f64(
    const Conv2dGeometry& geometry, const double* input, const double* weight,
    double* output);
void adder_conv2d_input_grad_f64(
    const Conv2dGeometry& geometry, const double* grad_output,
    const double* input, const double* weight, InputGradient form,
    double* grad_input);

}  // namespace mmadder::cpu
