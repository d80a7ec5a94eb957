"""An integer network as an ONNX file in integer arithmetic.

Standard operators alone, so that a runtime computes the bytes of
docs/integer_format.md: no floating point, sums in int32, requantization in
int64. Steps that ONNX has no operator for are local functions, an adder is one
node.
"""
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmadder.files import whole_file
from mmadder.integer import IntegerNetwork
from mmadder.integer.network import FRACTION

from .adder_function import (
    DOMAIN,
    PLAIN,
    VERSION,
    WORK,
    adder_functions,
    filters_at_a_time,
)
from .onnx_file import add_metadata
from .onnx_graph import OPSET, require_opset
from .packages import require_packages

if TYPE_CHECKING:
    import onnx

INPUT = 'images'
IR_VERSION = 10
ADDER, CENTERED = 'IntegerAdder', 'CenteredIntegerAdder'
REQUANTIZE, RESIDUAL = 'Requantize', 'RequantizeWithResidual'
CODES, AVERAGE, SUM = 'ToCodes', 'IntegerAverage', 'IntegerSum'
# Of int8 weights as uint8: runtimes add products of uint8 and int8 in 16 bits
# on processors without VNNI, which saturate.
WEIGHT_ZERO = 128

# ONNX's Div rounds integers towards zero. Its Mod has the divisor's sign, so
# what Div gets is divided without a rest.
_FLOOR = '''
  rest_{name} = Mod ({name}, {divisor})
  whole_{name} = Sub ({name}, rest_{name})
  {result} = Div (whole_{name}, {divisor})
'''
_ADDER = '''
  zero_point = Constant <value_int: int = @zero_point> ()
  zero_of_type = Cast <to = 6> (zero_point)
  codes = Cast <to = 6> (input)
  values = Sub (codes, zero_of_type)
  weight_codes = Cast <to = 6> (weight)
  weight_values = Sub (weight_codes, zero_of_type)
  output = mmadder.AdderConv2d <strides: ints = @strides,
    padding: ints = @padding, dilations: ints = @dilations,
    group: ints = @group, block: ints = @block, work: ints = @work>
    (values, weight_values)
'''
_CENTERED = '''
  scores = mmadder.IntegerAdder <strides: ints = @strides,
    padding: ints = @padding, dilations: ints = @dilations,
    group: ints = @group, block: ints = @block, work: ints = @work,
    zero_point: int = @zero_point> (input, weight)
  filter_axis = Constant <value_ints = [1]> ()
  total = ReduceSum <keepdims = 1> (scores, filter_axis)
  filters = Shape <start = 0, end = 1> (weight)
  filters_of_type = Cast <to = 6> (filters)
  product = Mul (scores, filters_of_type)
  output = Sub (product, total)
'''
_T = '''
  wide = Cast <to = 7> (sums)
  product = Mul (wide, multiplier)
  half = Constant <value_int: int = @half> ()
  divisor = Constant <value_int: int = @divisor> ()
  raised = Add (product, half)
''' + _FLOOR.format(name='raised', divisor='divisor', result='scaled') + '''
  least = Constant <value_int = -1073741824> ()
  most = Constant <value_int = 1073741823> ()
  near = Clip (scaled, least, most)
  narrow = Cast <to = 6> (near)
  t = Add (narrow, bias)
'''
_TO_CODES = '''
  output = mmadder.ToCodes <zero_point: int = @zero_point, low: int = @low,
    highest: int = @highest> ({t})
'''
_ADD_RESIDUAL = '''
  residual_zero = Constant <value_int: int = @residual_zero> ()
  residual_zero_of_type = Cast <to = 6> (residual_zero)
  factor = Constant <value_int: int = @residual_multiplier> ()
  factor_of_type = Cast <to = 6> (factor)
  residual_codes = Cast <to = 6> (residual)
  residual_values = Sub (residual_codes, residual_zero_of_type)
  residual_product = Mul (residual_values, factor_of_type)
  sum = Add (t, residual_product)
'''
_CODES = f'''
  half = Constant <value = int32[1] {{{1 << FRACTION - 1}}}> ()
  unit = Constant <value = int32[1] {{{1 << FRACTION}}}> ()
  raised = Add (t, half)
''' + _FLOOR.format(name='raised', divisor='unit', result='value') + '''
  zero_point = Constant <value_int: int = @zero_point> ()
  low = Constant <value_int: int = @low> ()
  highest = Constant <value_int: int = @highest> ()
  zero_of_type = Cast <to = 6> (zero_point)
  low_of_type = Cast <to = 6> (low)
  highest_of_type = Cast <to = 6> (highest)
  code = Add (value, zero_of_type)
  clipped = Clip (code, low_of_type, highest_of_type)
  output = Cast <to = 2> (clipped)
'''
_AVERAGE = '''
  codes = Cast <to = 6> (input)
  spatial = Constant <value_ints = [2, 3]> ()
  total = ReduceSum <keepdims = 1> (codes, spatial)
  wide = Cast <to = 7> (total)
  size = Shape <start = 2> (input)
  count = ReduceProd <keepdims = 1> (size)
  input_zero = Constant <value_int: int = @input_zero> ()
  zeros = Mul (count, input_zero)
  values = Sub (wide, zeros)
  multiplier = Constant <value_int: int = @multiplier> ()
  product = Mul (values, multiplier)
  half = Constant <value_int: int = @half> ()
  divisor = Constant <value_int: int = @divisor> ()
  halves = Mul (count, half)
  divisors = Mul (count, divisor)
  raised = Add (product, halves)
''' + _FLOOR.format(name='raised', divisor='divisors', result='value') + '''
  zero_point = Constant <value_int: int = @zero_point> ()
  low = Constant <value_int: int = @low> ()
  highest = Constant <value_int: int = @highest> ()
  code = Add (value, zero_point)
  clipped = Clip (code, low, highest)
  output = Cast <to = 2> (clipped)
'''
# Row i of H sees row i H_right // H of the right map.
_SUM = '''
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  height = Shape <start = 2, end = 3> (left)
  width = Shape <start = 3, end = 4> (left)
  right_height = Shape <start = 2, end = 3> (right)
  right_width = Shape <start = 3, end = 4> (right)
  rows = Squeeze (height)
  columns = Squeeze (width)
  row = Range (zero, rows, one)
  column = Range (zero, columns, one)
  row_product = Mul (row, right_height)
  column_product = Mul (column, right_width)
  right_row = Div (row_product, height)
  right_column = Div (column_product, width)
  of_rows = Gather <axis = 2> (right, right_row)
  nearest = Gather <axis = 3> (of_rows, right_column)
  {left}
  {right}
  t = Add (left_product, right_product)
'''
_TERM = '''
  {name}_zero = Constant <value_int: int = @{name}_zero> ()
  {name}_zero_of_type = Cast <to = 6> ({name}_zero)
  {name}_factor = Constant <value_int: int = @{name}_multiplier> ()
  {name}_factor_of_type = Cast <to = 6> ({name}_factor)
  {name}_codes = Cast <to = 6> ({source})
  {name}_values = Sub ({name}_codes, {name}_zero_of_type)
  {name}_product = Mul ({name}_values, {name}_factor_of_type)
'''
_GEOMETRY = 'strides, padding, dilations, group, block, work, zero_point'
_TARGET = 'zero_point, low, highest'
# {name: (attributes, inputs, body)}, callees first.
_FUNCTIONS = {
    ADDER: (_GEOMETRY, 'input, weight', _ADDER),
    CENTERED: (_GEOMETRY, 'input, weight', _CENTERED),
    CODES: (_TARGET, 't', _CODES),
    REQUANTIZE: (f'half, divisor, {_TARGET}', 'sums, multiplier, bias',
                 _T + _TO_CODES.format(t='t')),
    RESIDUAL: (
        f'half, divisor, {_TARGET}, residual_zero, residual_multiplier',
        'sums, multiplier, bias, residual',
        _T + _ADD_RESIDUAL + _TO_CODES.format(t='sum')),
    AVERAGE: (f'half, divisor, {_TARGET}, multiplier, input_zero', 'input',
              _AVERAGE),
    SUM: (f'{_TARGET}, left_zero, left_multiplier, right_zero, '
          'right_multiplier', 'left, right',
          _SUM.format(left=_TERM.format(name='left', source='left'),
                      right=_TERM.format(name='right', source='nearest'))
          + _TO_CODES.format(t='t'))}


def integer_functions(opset: int) -> dict[str, str]:
    """{name: a local function in ONNX's text format}, callees first."""
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}, ' \
        f'"{DOMAIN}": {VERSION}]>\n'
    plain = adder_functions(opset, element='int32')[PLAIN]
    return {PLAIN: plain} | {
        name: f'{head}{name} <{attributes}> ({inputs}) => (output)\n{{{body}}}'
        for name, (attributes, inputs, body) in _FUNCTIONS.items()}


def export_integer_onnx(network: IntegerNetwork, path: str | Path, *,
                        opset: int = OPSET) -> None:
    """Write an integer network as an ONNX file, whole or not at all.

    Its input ``images`` (N, C, H, W) is uint8, of any size if the network
    takes any; its outputs are uint8 or int32. The metadata have what these
    stand for, as ``mmadder.outputs``, and what is in the network's ``model``.

    Args:
        network: any integer network.
        path: file to write.
        opset: version of ONNX's operators.
    Raises:
        InputError: a package is missing, or the opset is too old or too new.
    """
    model = to_integer_onnx(network, opset=opset)
    with whole_file(path) as partial:
        partial.write_bytes(model.SerializeToString())


def to_integer_onnx(network: IntegerNetwork, *,
                    opset: int = OPSET) -> 'onnx.ModelProto':
    """The model of :func:`export_integer_onnx`, checked."""
    require_packages()
    require_opset(opset)
    import onnx
    model = _Graph(network).model(opset)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants of a network."""

    def __init__(self, network):
        self.network = network
        self.nodes, self.constants = [], {}
        self.sizes = None if network.size is None else \
            network.sizes(tuple(network.size))
        self.tensors = {network.image: INPUT}
        for name, source in network.outputs.items():
            self.tensors.setdefault(source, name)
        kinds = dict(adder=self._adder, convolution=self._convolution,
                     max_pool=self._max_pool, average=self._average,
                     sum=self._sum)
        for step in network.steps:
            kinds[step['kind']](step, step['output'])
        for name, source in network.outputs.items():
            if self._tensor(source) != name:
                self._node('Identity', name, [self._tensor(source)], name)

    def model(self, opset):
        import onnx
        from onnx import helper, numpy_helper
        network = self.network
        graph = helper.make_graph(
            self.nodes, 'integer_network',
            [self._value(network.image, INPUT)],
            [self._value(source, name)
             for name, source in network.outputs.items()],
            [numpy_helper.from_array(array, name)
             for name, array in self.constants.items()])
        model = helper.make_model(
            graph, ir_version=IR_VERSION, producer_name='mmadder',
            opset_imports=[helper.make_opsetid('', opset),
                           helper.make_opsetid(DOMAIN, VERSION)])
        # A function that no node calls would be read for nothing.
        needed, found = {node.op_type for node in self.nodes}, []
        for name, text in reversed(integer_functions(opset).items()):
            if name in needed:
                function = onnx.parser.parse_function(text)
                needed |= {node.op_type for node in function.node}
                found.insert(0, function)
        model.functions.extend(found)
        add_metadata(model, dict(
            network.model, outputs={
                name: network.maps[source]
                for name, source in network.outputs.items()}))
        return model

    def _value(self, name, tensor):
        from onnx import TensorProto, helper
        entry = self.network.maps[name]
        if self.sizes:
            height, width = self.sizes[name]
        elif name == self.network.image:
            height, width = 'height', 'width'
        else:
            height, width = f'{tensor}_height', f'{tensor}_width'
        kind = TensorProto.UINT8 if entry['type'] == 'uint8' \
            else TensorProto.INT32
        return helper.make_tensor_value_info(
            tensor, kind, ['batch', entry['channels'], height, width])

    def _tensor(self, name):
        return self.tensors.get(name, f'map/{name}')

    def _node(self, kind, name, inputs, output, domain='', **attributes):
        from onnx import helper
        self.nodes.append(helper.make_node(
            kind, inputs, [output], name=name, domain=domain, **attributes))
        return output

    def _function(self, kind, name, inputs, output, **attributes):
        return self._node(kind, name, inputs, output, DOMAIN, **attributes)

    def _constant(self, name, array):
        self.constants.setdefault(name, array)
        return name

    def _weight(self, step, array):
        """Its name; layers may share one."""
        return self._constant(self.network.label(step, 'weight'), array)

    # ------------------------------------------------------------ the steps --

    def _adder(self, step, name):
        weight = self.network.array(step, 'weight')
        size = self.sizes[name] if self.sizes else (None, None)
        sums = self._function(
            CENTERED if step['center'] else ADDER, name,
            [self._tensor(step['input']), self._weight(step, weight)],
            f'{name}/sums', strides=step['stride'], padding=step['padding'],
            dilations=step['dilation'], group=[1], work=[WORK],
            block=[filters_at_a_time(len(weight), *size)],
            zero_point=self.network.maps[step['input']]['zero_point'])
        self._requantize(step, name, sums)

    def _convolution(self, step, name):
        weight = self.network.array(step, 'weight').astype(np.int16)
        source, padding = self._tensor(step['input']), step['padding']
        zero = self.network.maps[step['input']]['zero_point']
        offset = None
        if isinstance(zero, list):
            # One zero point for all channels is what ConvInteger takes.
            source = self._padded(step, name, source, zero)
            padding = 0, 0
            offset = np.einsum('ocij,c->o', weight.astype(np.int64), zero)
            zero = 0
        sums = self._node(
            'ConvInteger', name,
            [source, self._weight(step, (weight + WEIGHT_ZERO).astype(
                np.uint8)),
             self._constant(f'code_{zero}', np.uint8(zero)),
             self._constant(f'code_{WEIGHT_ZERO}', np.uint8(WEIGHT_ZERO))],
            f'{name}/sums', strides=step['stride'],
            pads=[*padding, *padding], dilations=step['dilation'],
            kernel_shape=weight.shape[2:])
        if offset is not None:
            sums = self._node('Sub', f'{name}/Sub', [
                sums, self._constant(f'{name}/offset', _per_channel(
                    offset, np.int32))], f'{name}/sums_of_values')
        if self.network.maps[name]['type'] == 'uint8':
            self._requantize(step, name, sums)
        else:
            self._node('Add', f'{name}/Add', [sums, self._bias(step)],
                       self._tensor(name))

    def _padded(self, step, name, source, zero):
        """The picture, each channel within a border of its zero point."""
        if not any(step['padding']):
            return source
        pads = self._constant(f'{name}/pads', np.array(
            [0, 0, *step['padding']] * 2, np.int64))
        labels = [f'{name}/channel_{i}' for i in range(len(zero))]
        from onnx import helper
        self.nodes.append(helper.make_node(
            'Split', [source], labels, name=f'{name}/Split', axis=1,
            num_outputs=len(zero)))
        padded = [self._node(
            'Pad', f'{label}/Pad',
            [label, pads, self._constant(f'code_{code}', np.uint8(code))],
            f'{label}/padded') for label, code in zip(labels, zero)]
        return self._node('Concat', f'{name}/Concat', padded,
                          f'{name}/padded', axis=1)

    def _bias(self, step):
        return self._constant(
            f"{step['output']}/bias",
            _per_channel(self.network.array(step, 'bias'), np.int32))

    def _requantize(self, step, name, sums):
        inputs = [
            sums, self._constant(f'{name}/multiplier', _per_channel(
                self.network.array(step, 'multiplier'), np.int64)),
            self._bias(step)]
        attributes = dict(_rounding(step), **self._codes(step))
        residual = step.get('residual')
        if residual is not None:
            inputs.append(self._tensor(residual))
            attributes.update(
                residual_zero=self.network.maps[residual]['zero_point'],
                residual_multiplier=step['residual_multiplier'])
        self._function(
            REQUANTIZE if residual is None else RESIDUAL,
            f'{name}/Requantize', inputs, self._tensor(name), **attributes)

    def _codes(self, step):
        target = self.network.maps[step['output']]
        return dict(zero_point=target['zero_point'], low=step['low'],
                    highest=target['highest'])

    def _max_pool(self, step, name):
        self._node('MaxPool', name, [self._tensor(step['input'])],
                   self._tensor(name), kernel_shape=step['kernel'],
                   strides=step['stride'], pads=step['padding'] * 2)

    def _average(self, step, name):
        self._function(
            AVERAGE, name, [self._tensor(step['input'])], self._tensor(name),
            multiplier=step['multiplier'],
            input_zero=self.network.maps[step['input']]['zero_point'],
            **_rounding(step), **self._codes(step))

    def _sum(self, step, name):
        sides = {}
        for side, source, multiplier in zip(
                ('left', 'right'), step['inputs'], step['multipliers']):
            sides[f'{side}_zero'] = self.network.maps[source]['zero_point']
            sides[f'{side}_multiplier'] = multiplier
        self._function(SUM, name, list(map(self._tensor, step['inputs'])),
                       self._tensor(name), **sides, **self._codes(step))


def _rounding(step):
    return dict(half=1 << step['shift'] - 1, divisor=1 << step['shift'])


def _per_channel(array, kind):
    return np.asarray(array, kind).reshape(-1, 1, 1)
