"""ONNX files of integer networks against the reference, byte by byte."""
import importlib.util
import json

import numpy as np
import pytest
from random_networks import (
    SIZE,
    classifier,
    extremes,
    long_sums,
    lopsided,
    one_weight,
    pictures,
    pyramid,
    shift_only,
)

from mmadder.errors import InputError
from mmadder.export.integer_onnx import (
    ADDER,
    CENTERED,
    export_integer_onnx,
    integer_functions,
    to_integer_onnx,
)
from mmadder.export.onnx_graph import NEWEST_OPSET, OPSET
from mmadder.integer import integer_reference

pytest.importorskip('onnxruntime')
import onnx
from onnx_tools import start


def check(network, session, images, maps=None):
    """That a session gives the reference's bytes; returns its outputs."""
    if maps is None:
        maps = integer_reference.run(network, images)
    names = [entry.name for entry in session.get_outputs()]
    assert names == list(network.outputs)
    found = session.run(None, dict(images=images))
    for name, output in zip(names, found):
        expected = maps[network.outputs[name]]
        assert output.dtype == expected.dtype
        np.testing.assert_array_equal(output, expected, err_msg=name)
    return found


@pytest.mark.parametrize('is_fixed', [False, True])
@pytest.mark.parametrize('make, options', [
    (classifier, {}), (classifier, dict(seed=1, center=False, highest=63)),
    (classifier, dict(seed=2, shift_only=True, highest=15)), (lopsided, {}),
    (pyramid, {}), (pyramid, dict(seed=1, center=False, highest=15)),
    (shift_only, {}), (extremes, {}), (extremes, dict(highest=15)),
    (one_weight, {})])
def test_every_byte(make, options, is_fixed):
    network = make(**options)
    channels = network.maps['image']['channels']
    network.size = list(SIZE) if is_fixed else None
    session = start(to_integer_onnx(network))
    images = pictures(channels=channels)
    found = check(network, session, images)
    check(network, session, images[1:2])
    if is_fixed:
        for entry, output in zip(session.get_outputs(), found):
            assert entry.shape == ['batch', *output.shape[1:]]
    else:
        assert session.get_inputs()[0].shape == \
            ['batch', channels, 'height', 'width']
        check(network, session, pictures(1, (53, 36), channels))


def test_a_real_picture(scene):
    network, image, maps = scene
    check(network, start(to_integer_onnx(network)), image, maps)


def test_long_sums():
    network = long_sums()
    check(network, start(to_integer_onnx(network)), pictures(1, (3, 3)))


@pytest.mark.parametrize('opset', [OPSET, NEWEST_OPSET])
def test_opsets(opset):
    network = pyramid(widths=(5, 6), channels=4)
    model = to_integer_onnx(network, opset=opset)
    assert {entry.domain: entry.version for entry in model.opset_import} \
        == {'': opset, 'mmadder': 1}
    check(network, start(model), pictures())


@pytest.mark.parametrize('center, kind', [(False, ADDER), (True, CENTERED)])
def test_a_node_for_each_adder(center, kind):
    network = classifier(center=center)
    model = to_integer_onnx(network)
    assert [node.name for node in model.graph.node
            if node.op_type == kind] == [
        step['output'] for step in network.steps if step['kind'] == 'adder']
    functions = {function.name for function in model.functions}
    assert (CENTERED in functions) == center
    assert 'IntegerSum' not in functions


def test_no_floating_point_and_no_operators_of_others():
    model = to_integer_onnx(pyramid())
    assert not any('float' in text
                   for text in integer_functions(OPSET).values())
    assert {onnx.TensorProto.DataType.Name(array.data_type)
            for array in model.graph.initializer} == {
        'UINT8', 'INT32', 'INT64'}
    assert {node.domain for function in model.functions
            for node in (*function.node, *model.graph.node)} == {
        '', 'mmadder'}


def test_weights_are_bytes_without_a_sign():
    """uint8 times int8 saturates in 16 bits on processors without VNNI."""
    network = one_weight()
    weight = network.arrays['map_2/weight']
    weight[0], weight[1] = 127, -128
    model = to_integer_onnx(network)
    weights = {array.name: onnx.numpy_helper.to_array(array)
               for array in model.graph.initializer
               if array.name.endswith('/weight')}
    assert sorted(weights) == ['map_1/weight', 'map_2/weight']  # one shared
    assert {array.dtype for array in weights.values()} == {np.dtype('uint8')}
    check(network, start(model), pictures())


def test_names_and_metadata():
    """An output with the name of its map, one map twice."""
    network = pyramid()
    name = network.outputs['output_1']
    network.outputs = {name: name, 'a': name, 'b': network.outputs['output_0']}
    network.model = dict(classes=['ä'], kind='classifier')
    model = to_integer_onnx(network)
    check(network, start(model), pictures())
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found['mmadder.kind'] == 'classifier'
    found = {key: json.loads(text) for key, text in found.items()
             if key != 'mmadder.kind'}
    assert found['mmadder.classes'] == ['ä']
    assert found['mmadder.outputs']['a'] == network.maps[name]
    assert list(found['mmadder.outputs']) == [name, 'a', 'b']


def test_files(tmp_path, monkeypatch):
    network = classifier()
    path = tmp_path / 'new' / 'network.onnx'
    export_integer_onnx(network, path)
    check(network, start(onnx.load(path)), pictures())
    assert path.read_bytes() == \
        to_integer_onnx(network).SerializeToString()
    with pytest.raises(InputError, match='opset 17 is too old'):
        export_integer_onnx(network, tmp_path / 'a.onnx', opset=17)
    with pytest.raises(InputError, match='is a directory'):
        export_integer_onnx(network, tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: (
        None if name == 'onnx' else find(name, *args)))
    with pytest.raises(InputError, match='ONNX files need onnx, not inst'):
        export_integer_onnx(network, tmp_path / 'a.onnx')
    assert [entry.name for entry in tmp_path.iterdir()] == ['new']
