// From a plan to kernel calls. Launcher is the only part that differs between
// a GPU and the emulation: launcher(kernel, blocks, threads, arguments...).
#pragma once

#include <type_traits>

#include "elementwise.cuh"
#include "forward.cuh"
#include "input_grad.cuh"
#include "plan.h"

namespace mmadder {
namespace cuda {

// Device pointers of one call; packed and partial are the plan's scratch.
template <typename T>
struct InputGradArguments {
  const T* grad_output;
  const T* input;
  const T* weight;
  void* packed;
  float* partial;
  T* grad_input;
};

template <typename T, typename Shared, typename Tile>
Strides strides_of(const Plan& plan) {
  return Loader<T, Shared, Tile, true>::byte_strides(
      plan.packing.pitch, plan.window.plane);
}

inline unsigned blocks_for(int64_t elements) {
  return (unsigned)std::min<int64_t>(ceil_div(elements, kThreads), 1 << 16);
}

template <typename T, typename Shared, typename Launcher>
void run_pack(const Launcher& launch, const Shape& s,
              const PackedShape& packing, const T* weight, Shared* packed) {
  launch(pack_forward_kernel<T, Shared>, blocks_for(packing.numel(s.groups)),
         kThreads, weight, packed, s, packing);
}

// The weight as the tiles of a plan read it.
template <typename T, typename Launcher>
void dispatch_pack(const Launcher& launch, const Plan& plan, const Shape& s,
                   const T* weight, void* packed) {
  if (plan.direct)
    return;
  if constexpr (is_same<T, __half>) {
    if (plan.half_pairs)
      return run_pack(
          launch, s, plan.packing, weight, static_cast<__half*>(packed));
  }
  if constexpr (!is_same<T, double>)
    run_pack(launch, s, plan.packing, weight, static_cast<float*>(packed));
}

template <typename Tile, bool WHOLE_TAPS, typename Shared, typename Launcher,
          typename T, typename End>
void run_forward(const Launcher& launch, const Plan& plan, const Shape& s,
                 const ForwardArguments<T, End>& a) {
  launch(adder_conv2d_forward_kernel<T, Shared, Tile, WHOLE_TAPS, End>,
         (unsigned)plan.block_count, Tile::kThreads, a.input,
         static_cast<const Shared*>(a.packed), a.output, a.partial, s,
         plan.packing, plan.window, strides_of<T, Shared, Tile>(plan),
         plan.blocks, a.end);
  if (plan.partial_numel > 0)
    launch(finish_kernel<T, End>, blocks_for(s.out_numel()), kThreads,
           (const float*)a.partial, a.output, s, plan.blocks, a.end);
}

template <int ROWS, int PIXELS, int THREAD_ROWS, int BLOCKS, typename Launcher,
          typename T, typename End>
void run_forward_taps(const Launcher& launch, const Plan& plan, const Shape& s,
                      const ForwardArguments<T, End>& a) {
  constexpr int kWhole = is_same<T, float> ? kWideDepth : kDepth;
  if (plan.whole_taps)
    run_forward<Tile<ROWS, PIXELS, kWhole, THREAD_ROWS, BLOCKS>, true, float>(
        launch, plan, s, a);
  else
    run_forward<Tile<ROWS, PIXELS, kDepth, THREAD_ROWS, BLOCKS>, false, float>(
        launch, plan, s, a);
}

template <typename Launcher, typename T, typename Sum, typename End>
void run_direct(const Launcher& launch, const Shape& s,
                const ForwardArguments<T, End>& a, Sum* sums) {
  const unsigned blocks = blocks_for(s.out_numel());
  if (!a.end.center) {
    launch(adder_conv2d_forward_direct_kernel<T, T, End>, blocks, kThreads,
           a.input, a.weight, a.output, s, a.end);
    return;
  }
  launch(adder_conv2d_forward_direct_kernel<T, Sum, NoEpilogue>, blocks,
         kThreads, a.input, a.weight, sums, s, NoEpilogue{});
  launch(center_kernel<T, Sum, End>,
         blocks_for((int64_t)s.batch * s.groups * s.out_plane()), kThreads,
         (const Sum*)sums, a.output, s, a.end);
}

template <typename Launcher, typename T, typename End>
void dispatch_forward(const Launcher& launch, const Plan& plan, const Shape& s,
                      const ForwardArguments<T, End>& a) {
  if constexpr (is_same<T, double>) {
    run_direct(launch, s, a, a.output);
  } else {
    if constexpr (is_same<T, __half>) {
      if (!plan.direct && plan.half_pairs)
        return run_forward<Tile<128, 64, kWideDepth, 8, 3>, true, __half>(
            launch, plan, s, a);
    }
    if (plan.direct)
      run_direct(launch, s, a, a.partial);
    else if (plan.tile.rows == 128)  // the tiles of kForwardTiles
      run_forward_taps<128, 64, 8, 3>(launch, plan, s, a);
    else if (plan.tile.rows == 64)
      run_forward_taps<64, 128, 8, 3>(launch, plan, s, a);
    else
      run_forward_taps<32, 128, 4, 4>(launch, plan, s, a);
  }
}

template <typename Tile, bool WHOLE_TAPS, InputGradient FORM, typename T,
          typename Launcher>
void run_input_grad(const Launcher& launch, const Plan& plan, const Shape& s,
                    const InputGradArguments<T>& a) {
  auto* packed = static_cast<float*>(a.packed);
  launch(
      pack_input_grad_kernel<T>, blocks_for(plan.packed_bytes / sizeof(float)),
      kThreads, a.weight, packed, s, plan.packing, Saturated<FORM>::kScale,
      Saturated<FORM>::kShift);
  launch(adder_conv2d_input_grad_kernel<T, Tile, WHOLE_TAPS, FORM>,
         (unsigned)plan.block_count, Tile::kThreads, a.grad_output, a.input,
         (const float*)packed, a.grad_input, a.partial, s, plan.packing,
         plan.window, strides_of<T, float, Tile>(plan), plan.blocks);
  if (plan.blocks.splits > 1)
    launch(sum_partial_kernel<T>, blocks_for(s.in_numel()), kThreads,
           (const float*)a.partial, a.grad_input, plan.blocks.splits,
           s.in_numel());
}

template <int ROWS, int PIXELS, InputGradient FORM, typename T,
          typename Launcher>
void run_input_grad_taps(
    const Launcher& launch, const Plan& plan, const Shape& s,
    const InputGradArguments<T>& a) {
  if (plan.whole_taps)
    run_input_grad<Tile<ROWS, PIXELS, kWideDepth, 8, 2>, true, FORM>(
        launch, plan, s, a);
  else
    run_input_grad<Tile<ROWS, PIXELS, kDepth, 8, 2>, false, FORM>(
        launch, plan, s, a);
}

template <InputGradient FORM, typename T, typename Launcher>
void run_input_grad_rows(
    const Launcher& launch, const Plan& plan, const Shape& s,
    const InputGradArguments<T>& a) {
  if (plan.tile.rows == 128)  // the tiles of kInputGradTiles
    run_input_grad_taps<128, 64, FORM>(launch, plan, s, a);
  else
    run_input_grad_taps<64, 128, FORM>(launch, plan, s, a);
}

template <typename T, typename Launcher>
void dispatch_input_grad(
    const Launcher& launch, const Plan& plan, const Shape& s,
    InputGradient form, const InputGradArguments<T>& a) {
  if constexpr (!is_same<T, double>) {
    if (!plan.direct && form == InputGradient::kSign)
      return run_input_grad_rows<InputGradient::kSign>(launch, plan, s, a);
    if (!plan.direct)
      return run_input_grad_rows<InputGradient::kHardtanh>(launch, plan, s, a);
  }
  launch(adder_conv2d_input_grad_direct_kernel<T>, blocks_for(s.in_numel()),
         kThreads, a.grad_output, a.input, a.weight, a.grad_input, s, form);
}

}  // namespace cuda
}  // namespace mmadder
