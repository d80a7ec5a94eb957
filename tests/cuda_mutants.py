"""Bugs to plant in the CUDA kernels, to see whether the emulation finds them.

name: (file, text, its replacement, which occurrence counted from 1, the
sanitizer that is needed or None where wrong values suffice).
"""
STORE = '    loader.store(current ^ 1);\n    __syncthreads();\n'

MUTANTS = {
    # -- barriers and buffers
    'no wait for cp.async': (
        'loader.cuh', '__pipeline_wait_prior(0);', '', 1, None),
    'barrier before the wait for cp.async': (
        'forward.cuh', STORE,
        '    __syncthreads();\n    loader.store(current ^ 1);\n', 1, 'thread'),
    'fetch into the buffer in use': (
        'forward.cuh', 'loader.fetch(current ^ 1)', 'loader.fetch(current)',
        1, None),
    'store into the buffer in use': (
        'input_grad.cuh', 'loader.store(current ^ 1)',
        'loader.store(current)', 1, None),
    'read the other buffer': (
        'input_grad.cuh', 'rows + (current * D + k)',
        'rows + ((current ^ 1) * D + k)', 1, None),
    'buffers never change': (
        'forward.cuh', 'current ^= 1;', '', 1, None),
    'no barrier at the end of the forward loop': (
        'forward.cuh', STORE, '    loader.store(current ^ 1);\n', 1,
        'thread'),
    'no barrier after the first store, forward': (
        'forward.cuh', '  loader.store(0);\n  __syncthreads();',
        '  loader.store(0);', 1, 'thread'),
    'no barrier at the end of the gradient loop': (
        'input_grad.cuh', STORE, '    loader.store(current ^ 1);\n', 1,
        'thread'),
    'no barrier after the first store, gradient': (
        'input_grad.cuh', '    loader.store(0);\n  }\n  __syncthreads();',
        '    loader.store(0);\n  }', 1, 'thread'),
    'no barrier before the sums of g are read': (
        'input_grad.cuh', 'sums[threadIdx.x] = grad_sum;\n  __syncthreads();',
        'sums[threadIdx.x] = grad_sum;', 1, 'thread'),
    'barrier that some threads miss': (
        'input_grad.cuh', 'sums[threadIdx.x] = grad_sum;\n  __syncthreads();',
        'sums[threadIdx.x] = grad_sum;\n  if (threadIdx.x) __syncthreads();',
        1, None),
    'sum of g from the other buffer': (
        'input_grad.cuh', 'stored_sum(current)', 'stored_sum(current ^ 1)',
        1, None),
    # -- indices
    'rows dilated as columns': (
        'plan.h', 's.dilation_h, s.dilation_w,', 's.dilation_w, s.dilation_w,',
        1, None),
    'taps of a row follow each other into the next': (
        'loader.cuh', 'source += window.row_jump;', '', 1, None),
    'bits of taps not moved with the tap': (
        'loader.cuh', 'met >>= 1;', '', 1, None),
    'bits of taps not moved to the first tap of a split': (
        'loader.cuh', 'taps_met(row0, col0) >> tap', 'taps_met(row0, col0)', 1,
        None),
    'chunks of pixels at the distance of rows': (
        'tile.cuh', 'j / C * (8 * C)', 'j / C * (4 * C)', 1, None),
    'class 0 of the taps in every class': (
        'shape.h', '(remainder + pad - s.first * dilation) % stride != 0',
        '(s.first * dilation) % stride != 0', 1, None),
    'taps of a class in the wrong direction': (
        'plan.h', '-h.out_step', 'h.out_step', 1, None),
    'packed channels of the wrong group': (
        'elementwise.cuh', '(int64_t)group * s.out_per_group + channel',
        'channel', 1, None),
    'partial results over each other': (
        'forward.cuh', 'partial + done.split * s.out_numel()', 'partial', 1,
        None),
    'a split too few in the sum': (
        'elementwise.cuh', 'split < splits', 'split < splits - 1', 1, None),
    'a split too few in the sum of the forward': (
        'epilogue.cuh', 'split < blocks.splits; ++split',
        'split < blocks.splits - 1; ++split', 1, None),
    'mean over the first filters only': (
        'elementwise.cuh', 'begin < s.out_per_group; begin += kRun',
        'begin < kRun; begin += kRun', 1, None),
    'mean of the first group in every group': (
        'elementwise.cuh', 'e / plane * s.out_per_group * plane + e % plane;',
        'e / (plane * s.groups) * s.out_channels * plane + e % plane;', 1,
        None),
    'no room for the sums of a centered output of few channels': (
        'plan.h', 'plan.partial_numel = s.out_numel();\n    return plan;',
        'plan.partial_numel = 1;\n    return plan;', 1, 'address'),
    'offset of an image in 32 bits': (
        'forward.cuh', '((int64_t)at.image * s.in_channels + '
        'block.group * s.in_per_group) *\n              s.in_plane()',
        '(int)(((int64_t)at.image * s.in_channels + '
        'block.group * s.in_per_group) * s.in_plane())', 1, None),
    # -- centering, and the epilogue of inference
    'rows beyond the filters in the mean': (
        'epilogue.cuh', 'if (mine.row(i) < rows)\n        sum', 'sum', 1,
        None),
    'no barrier before the sums of rows are read': (
        'epilogue.cuh', '__syncthreads();', '', 1, 'thread'),
    'mean over the rows of one warp': (
        'tile.cuh', 'kThreadsDown = 4 * kWarpsDown', 'kThreadsDown = 4', 1,
        'address'),
    'sums of a row tile over those of another': (
        'forward.cuh', 'done.split * blocks.row_tiles + done.first_row',
        'done.split + done.first_row', 1, None),
    'sums of a group in place of another': (
        'forward.cuh', '(part * s.groups + done.group)', 'part * s.groups', 1,
        None),
    'sums of one image for all': (
        'epilogue.cuh', 'n * plane + e % plane;', 'e % plane;', 1, None),
    'a row tile too few in the mean': (
        'epilogue.cuh', 'part < blocks.splits * blocks.row_tiles',
        'part < blocks.splits * blocks.row_tiles - 1', 1, None),
    'partial results without room for the sums': (
        'plan.h', '(s.out_numel() +', '(0 * s.out_numel() +', 1, 'address'),
    'norm of the first filters in every tile': (
        'epilogue.cuh', 'const int channel = first_channel + mine.row(i);',
        'const int channel = mine.row(i);', 1, None),
    'shortcut left out of what is rectified': (
        'epilogue.cuh', 'values.v[e] = end.rectified(values.v[e]);', '', 1,
        None),
    'ReLU that swallows NaN': (
        'shape.h', 'relu && y < 0.f ? 0.f : y', 'relu && !(y > 0.f) ? 0.f : y',
        1, None),
    'shortcut at the place in its group': (
        'elementwise.cuh', 'channel + m, place));', 'channel + m, e));', 1,
        None),
    'norm of the first group in every group': (
        'elementwise.cuh', 'e / plane % s.groups * s.out_per_group;', '0;', 1,
        None),
    # -- bounds
    'no bound on stored rows': (
        'tile.cuh', '          if (mine.row(i) < rows)\n            store(',
        '          store(', 1, 'address'),
    'no bound on stored pixels': (
        'tile.cuh', 'return n < count;', 'return n < count + 1;', 1,
        'address'),
    'no spare step after packed weights': (
        'plan.h', '(int)(ceil_div(depth, kWideDepth) + 1) * kWideDepth',
        '(int)ceil_div(depth, kWideDepth) * kWideDepth', 1, 'address'),
    'packed rows beyond the weight': (
        'elementwise.cuh', 'row < s.out_per_group && ', '', 1, 'address'),
    'taps beyond the last in the general case': (
        'loader.cuh', 'i < window.taps_h && inside(row, col)',
        'inside(row, col)', 1, 'address'),
    'padding read from memory': (
        'loader.cuh', 'met & 1 ? *source : convert<T>(0.f)', '*source', 1,
        'address'),
    'vector store where it is not aligned': (
        'tile.cuh', 'grid.plane() % 4 == 0', 'grid.plane() % 2 == 0', 1,
        'address'),
    # -- arithmetic
    'NaN of the input lost by saturation': (
        'input_grad.cuh', 'x[i][j] == x[i][j] || tiles == 0', 'true', 1,
        None),
    'sign with a flat slope': (
        'input_grad.cuh', '0x1p126f', '1.f', 1, None),
}
