"""The command that writes C programs and ONNX files of integers."""
import shutil
import subprocess

import numpy as np
import pytest
from random_networks import classifier

from mmadder.integer import integer_reference


def test_a_c_program_is_compiled_and_run(call_tool, tmp_path, monkeypatch,
                                         capsys):
    compiler = shutil.which('cc') or pytest.skip('needs a C compiler')
    monkeypatch.chdir(tmp_path)
    network = classifier()
    network.save('small.npz')
    call_tool('convert_integer.py', 'small.npz', '--c', 'c', '--input-size',
              20, 31)
    printed = capsys.readouterr().out
    assert 'of maps' in printed and 'c/network PICTURE.ppm' in printed
    subprocess.run([compiler, '-std=c99', '-O1', '-o', 'c/network',
                    'c/network.c'], check=True)
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    (tmp_path / 'a.ppm').write_bytes(b'P6 31 20 255\n' + image.tobytes())
    subprocess.run(['c/network', 'a.ppm', 'out.bin'], check=True)
    maps = integer_reference.run(network, image.transpose(2, 0, 1)[None])
    expected = b''.join(maps[source].astype('<i4').tobytes()
                        for source in network.outputs.values())
    assert (tmp_path / 'out.bin').read_bytes() == expected


def test_an_onnx_file(call_tool, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    network = classifier()
    network.save('small.npz')
    call_tool('convert_integer.py', 'small.npz', '--onnx', 'small.onnx')
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 31), np.uint8)
    session = onnxruntime.InferenceSession('small.onnx')
    found = session.run(None, {session.get_inputs()[0].name: image})
    maps = integer_reference.run(network, image)
    for value, source in zip(found, network.outputs.values()):
        np.testing.assert_array_equal(value, maps[source])


@pytest.mark.parametrize('options, message', [
    ([], 'give --c, --onnx or both'),
    (['--c', 'c'], 'takes pictures of any size, a C program of one'),
    (['--onnx', 'a.pb'], 'expected a name that ends with .onnx')])
def test_wrong_options(call_tool, tmp_path, monkeypatch, capsys, options,
                       message):
    monkeypatch.chdir(tmp_path)
    classifier().save('small.npz')
    call_tool('convert_integer.py', 'small.npz', *options, code=2)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['small.npz']
