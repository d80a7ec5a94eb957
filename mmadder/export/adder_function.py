"""The adder convolution in ONNX's standard operators, as local functions.

A local function keeps the graph readable: an adder is one node, whose type is
the kind of the layer, and a runtime that does not know it reads the
function's body in the same file.

The body never holds all differences \\|X - W\\|, which are C_out * C_in * K_h
* K_w maps. It goes over blocks of filters and, within a block, over the
taps and parts of the channels: at most ``work`` differences exist at a time,
or one channel's for each filter of the block if that is more. What exists at
once stays near twice the larger one of the layer's maps.
"""
import torch
from torch import Tensor, nn

from mmadder.layers import AdderConv2d
from mmadder.ops.adder_conv2d import output_size

DOMAIN, VERSION = 'mmadder', 1
PLAIN, CENTERED = 'AdderConv2d', 'CenteredAdderConv2d'
ATTRIBUTES = 'strides, padding, dilations, group, block, work'
BLOCKS = 4, 8, 16  # filters: of large maps, of any size, of small ones
WORK = 2**17  # differences at a time: 512 KiB, which caches hold

# N samples, G groups, B filters of a block, C channels of a group. A round is
# one tap and one part of the channels; the tables hold where it begins and
# ends, in the map (channel, row, column) and in a block's weight (tap,
# channel). Dimensions have no names: a runtime would take those of two layers
# for equal.
_BODY = '''
  zero = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  one = Constant <value_ints = [1]> ()
  rest = Constant <value_ints = [-1]> ()
  nowhere = Constant <value_ints = [0, 0]> ()
  as_column = Constant <value_ints = [-1, 1]> ()
  strides = Constant <value_ints: ints = @strides> ()
  padding = Constant <value_ints: ints = @padding> ()
  dilations = Constant <value_ints: ints = @dilations> ()
  group = Constant <value_ints: ints = @group> ()
  block = Constant <value_ints: ints = @block> ()
  work = Constant <value_ints: ints = @work> ()

  batch = Shape <start = 0, end = 1> (input)
  filters = Shape <start = 0, end = 1> (weight)
  channels = Shape <start = 1, end = 2> (weight)
  kernel = Shape <start = 2> (weight)
  columns = Gather (kernel, one)
  taps = ReduceProd <keepdims = 1> (kernel)

  pads = Concat <axis = 0> (nowhere, padding, nowhere, padding)
  padded = Pad (input, pads)
  size = Shape <start = 2> (padded)
  grouped_shape = Concat <axis = 0> (batch, group, one, channels, size)
  grouped = Reshape (padded, grouped_shape)

  before = Sub (kernel, one)
  reach = Mul (before, dilations)
  inner = Sub (size, one)
  room = Sub (inner, reach)
  moves = Div (room, strides)
  output_size = Add (moves, one)
  way = Mul (moves, strides)
  span = Add (way, one)

  slab_shape = Concat <axis = 0> (batch, group, block, output_size)
  slab = ReduceProd <keepdims = 1> (slab_shape)
  slab_or_one = Max (slab, one)
  fitting = Div (work, slab_or_one)
  at_least_one = Max (fitting, one)
  part = Min (at_least_one, channels)
  raised = Add (channels, part)
  last = Sub (raised, one)
  parts = Div (last, part)
  rounds = Mul (parts, taps)

  round_count = Squeeze (rounds)
  round = Range (zero, round_count, step)
  nth_tap = Mod (round, taps)
  nth_part = Div (round, taps)
  tap = Reshape (nth_tap, as_column)
  first = Mul (nth_part, part)
  channel = Reshape (first, as_column)
  row = Div (tap, columns)
  column = Mod (tap, columns)
  position = Concat <axis = 1> (row, column)
  corner = Mul (position, dilations)
  opposite = Add (corner, span)
  next_tap = Add (tap, one)
  next_channel = Add (channel, part)
  map_from = Concat <axis = 1> (channel, corner)
  map_to = Concat <axis = 1> (next_channel, opposite)
  weight_from = Concat <axis = 1> (tap, channel)
  weight_to = Concat <axis = 1> (next_tap, next_channel)

  by_block = Concat <axis = 0> (group, rest, block, channels, taps)
  weight_by_block = Reshape (weight, by_block)
  blocks_first = Transpose <perm = [1, 4, 0, 2, 3]> (weight_by_block)
  pixel_axes = Constant <value_ints = [5, 6]> ()
  filter_blocks = Unsqueeze (blocks_first, pixel_axes)

  zeros = ConstantOfShape <value = float[1] {0}> (slab_shape)
  map_axes = Constant <value_ints = [3, 4, 5]> ()
  map_steps = Concat <axis = 0> (one, strides)
  weight_axes = Constant <value_ints = [0, 3]> ()
  channel_axis = Constant <value_ints = [3]> ()
  stacked = Scan <num_scan_inputs = 1, body = filters_of_a_block (
      float[?, ?, ?, ?, 1, 1] block_weight
      ) => (float[?, ?, ?, ?, ?] scores) {
    scores = Scan <num_scan_inputs = 4, body = part_of_a_tap (
        float[?, ?, ?, ?, ?] so_far, int64[3] from, int64[3] to,
        int64[2] own_from, int64[2] own_to
        ) => (float[?, ?, ?, ?, ?] lower) {
      window = Slice (grouped, from, to, map_axes, map_steps)
      part_weight = Slice (block_weight, own_from, own_to, weight_axes)
      difference = Sub (window, part_weight)
      distance = Abs (difference)
      total = ReduceSum <keepdims = 0> (distance, channel_axis)
      lower = Sub (so_far, total)
    }> (zeros, map_from, map_to, weight_from, weight_to)
  }> (filter_blocks)
  filters_together = Transpose <perm = [1, 2, 0, 3, 4, 5]> (stacked)
  output_shape = Concat <axis = 0> (batch, filters, output_size)
  output = Reshape (filters_together, output_shape)
'''
_CENTERED_BODY = '''
  distances = mmadder.AdderConv2d <{attributes}> (input, weight)
  group = Constant <value_ints: ints = @group> ()
  batch = Shape <start = 0, end = 1> (distances)
  rest = Constant <value_ints = [-1]> ()
  size = Shape <start = 2> (distances)
  grouped_shape = Concat <axis = 0> (batch, group, rest, size)
  grouped = Reshape (distances, grouped_shape)
  filter_axis = Constant <value_ints = [2]> ()
  mean = ReduceMean <keepdims = 1> (grouped, filter_axis)
  centered = Sub (grouped, mean)
  shape = Shape (distances)
  output = Reshape (centered, shape)
'''.replace('{attributes}', ', '.join(
    f'{name}: ints = @{name}' for name in ATTRIBUTES.split(', ')))


class AdderNode(nn.Module):
    """An adder layer as a node of an ONNX graph, for ``torch.onnx.export``.

    Its weight is the layer's after the weight norm; a bias is added by a node
    of its own.

    Args:
        layer: an adder, not on its way from a convolution.
    Input:
        (N, in_channels, H, W), float32.
    Returns:
        (N, out_channels, H_out, W_out), with no values: it can only be traced.
    """

    def __init__(self, layer: AdderConv2d):
        super().__init__()
        self.kind = CENTERED if layer.center else PLAIN
        self.geometry = layer.stride, layer.padding, layer.dilation
        self.per_group = layer.out_channels // layer.groups
        self.attributes = dict(
            strides=list(layer.stride), padding=list(layer.padding),
            dilations=list(layer.dilation), group=[layer.groups], work=[WORK])
        self.register_buffer(
            'weight', layer.normalized_weight.detach().clone())
        bias = layer.bias
        self.register_buffer(
            'bias', None if bias is None else bias.detach().view(-1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        shape = output_size(input.shape, self.weight.shape, *self.geometry)
        block = filters_at_a_time(self.per_group, *shape[2:])
        output = torch.onnx.ops.symbolic(
            f'{DOMAIN}::{self.kind}', (input, self.weight),
            dict(self.attributes, block=[block]), dtype=input.dtype,
            shape=shape, version=VERSION)
        return output if self.bias is None else output + self.bias


def adder_functions(opset: int, element: str = 'float') -> dict[str, str]:
    """{name: a local function in ONNX's text format}, callees first.

    Args:
        opset: version of ONNX's operators.
        element: ONNX's type of input, weight and output, float or int32.
    """
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}'
    bodies = {PLAIN: ('', _BODY),
              CENTERED: (f', "{DOMAIN}": {VERSION}', _CENTERED_BODY)}
    return {name: f'{head}{more}]>\n{name} <{ATTRIBUTES}> (input, weight) '
                  f'=> (output)\n{{{body.replace("float", element)}}}'
            for name, (more, body) in bodies.items()}


def filters_at_a_time(filters: int, height: int | torch.SymInt,
                      width: int | torch.SymInt) -> int:
    """A divisor of ``filters``, smaller for larger maps of the output."""
    fewest, usual, most = BLOCKS
    if isinstance(height, int) and isinstance(width, int):
        usual = min(max(WORK // (height * width), fewest), most)
    return max(i for i in range(1, min(filters, usual) + 1)
               if filters % i == 0)
