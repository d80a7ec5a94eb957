"""tools/image_demo.py and tools/compare_runs.py."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmadder.models import build_model

REPO = Path(__file__).parents[2]
DETECTOR = 'digits/faster-rcnn_cnn-r18_cnn-fpn_1xb8-8e_digits.py'
CLASSIFIER = 'digits/ann-awn-resnet18_1xb32-5e_digits.py'
CIFAR = 'cifar10/ann-awn-resnet20_1xb256_cifar10.py'


@pytest.fixture
def run(call_tool, capsys):
    """Return a function that runs a tool and gives (stdout, stderr)."""

    def run_tool(tool, *args):
        call_tool(tool, *args)
        return capsys.readouterr()

    return run_tool


@pytest.fixture
def fails(call_tool, capsys):
    """Return a function that runs a tool and gives its last words."""

    def run_tool(tool, *args):
        call_tool(tool, *args, code=2)
        return capsys.readouterr().err

    return run_tool


@pytest.fixture
def checkpoint(tmp_path):
    """Return a function that writes a checkpoint with random weights."""

    def write(config, classes=None):
        torch.manual_seed(0)
        model = build_model(Config.fromfile(REPO / 'configs' / config))
        path = tmp_path / 'random.pth'
        torch.save(dict(state_dict=model.state_dict(), meta=dict(
            dataset_meta=dict(classes=classes))), path)
        return path

    return write


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, and a file that is none."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.jpg'):
        cv2.imwrite(str(folder / name),
                    rng.integers(0, 255, (64, 80, 3), dtype=np.uint8))
    (folder / 'notes.txt').write_text('')
    return folder


def said(out, name):
    """What the demo says of a picture; MMEngine logs to stdout, too."""
    line, = [line for line in out.splitlines() if f'{name}: ' in line]
    return line.split(f'{name}: ')[1]


def test_detector(run, checkpoint, pictures, tmp_path):
    config = REPO / 'configs' / DETECTOR
    out, _ = run('image_demo.py', pictures, config, checkpoint(DETECTOR),
                 '--out', tmp_path / 'out', '--score-thr', 0, '--device',
                 'cpu')
    drawn = cv2.imread(str(tmp_path / 'out' / 'a.png'))
    assert drawn.shape == (480, 600, 3)  # enlarged
    plain = cv2.resize(cv2.imread(str(pictures / 'a.png')), (600, 480))
    assert (drawn != plain).any()
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'a.png', 'b.jpg']
    assert int(said(out, 'a.png').split()[0]) > 0
    out, _ = run('image_demo.py', pictures / 'a.png', config,
                 tmp_path / 'random.pth', '--out', tmp_path / 'none',
                 '--score-thr', 1, '--device', 'cpu')
    assert said(out, 'a.png') == '0 boxes'
    untouched = cv2.imread(str(tmp_path / 'none' / 'a.png'))
    np.testing.assert_array_equal(untouched, plain)


@pytest.mark.parametrize('config, classes', [
    (CLASSIFIER, None), (CIFAR, ('thing', ) * 10)])
def test_classifier(run, checkpoint, pictures, tmp_path, config, classes):
    """CIFAR's pipeline has no loading step, and pictures of one size."""
    out, _ = run('image_demo.py', pictures / 'a.png',
                 REPO / 'configs' / config, checkpoint(config, classes),
                 '--out', tmp_path / 'out', '--device', 'cpu')
    name, score = said(out, 'a.png').split(', score ')
    assert name in (classes or '0123456789') and 0 < float(score) <= 1
    assert cv2.imread(str(tmp_path / 'out' / 'a.png')).shape == (480, 600, 3)


def test_wrong_demo_input(fails, checkpoint, pictures, tmp_path):
    config, weights = REPO / 'configs' / DETECTOR, checkpoint(DETECTOR)

    def message(image=pictures, config=config, weights=weights, *options):
        return fails('image_demo.py', image, config, weights, '--out',
                     tmp_path / 'out', *options)

    assert 'picture none.png does not exist' in message('none.png')
    assert "config 'none.py' does not exist" in message(config='none.py')
    assert "checkpoint 'none.pth' does not exist" in message(
        weights='none.pth')
    classifier = CLASSIFIER.replace('ann-awn', 'cnn')
    assert 'does not fit' in message(config=REPO / 'configs' / classifier)
    assert 'argument --device: abc: ' in message(
        pictures, config, weights, '--device', 'abc')
    assert 'which would be overwritten' in message(
        pictures, config, weights, '--out', pictures)
    (pictures / 'b.jpg').write_bytes(b'no picture')
    assert 'b.jpg cannot be decoded' in message(pictures / 'b.jpg')
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert 'has no pictures, expected files that end with .jpg' in message(
        empty)


def test_a_bad_picture_stops_no_others(fails, checkpoint, pictures, tmp_path):
    (pictures / 'a.png').write_bytes(b'no picture')
    (pictures / 'c.png').write_bytes(b'')
    message = fails('image_demo.py', pictures, REPO / 'configs' / CLASSIFIER,
                    checkpoint(CLASSIFIER), '--out', tmp_path / 'out',
                    '--device', 'cpu')
    first, *others = message[message.index('image_demo.py: '):].splitlines()
    assert first.endswith('2 of 3 pictures were not drawn:')
    assert [name in line for name, line in zip(('a.png', 'c.png'), others)
            ] == [True, True]
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['b.jpg']


def make_run(folder, values):
    data = folder / '20260101_000000' / 'vis_data'
    data.mkdir(parents=True)
    records = [dict(loss=1., step=i + 1) for i in range(len(values))]
    records += [{'accuracy/top1': value, 'step': i + 1}
                for i, value in enumerate(values)]
    (data / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    return folder


def test_compare_runs(run, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a', 'b', 'c=1,2'):
        make_run(tmp_path / name, [20., 40., 50.])
    out, _ = run('compare_runs.py', 'AWN=a,b/', './c=1,2', '--out', 'out')
    rows = [line.split('|')[1:3] for line in out.splitlines()[2:4]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['AWN', '2'], ['c=1,2', '1']]
    assert (tmp_path / 'out' / 'comparison.png').is_file()
    out, _ = run('compare_runs.py', 'a', 'b', '--out', 'out', '--names', 'x',
                 'y', '--metric', 'accuracy/top1')
    assert '| x ' in out and '| y ' in out
    assert '--names has 1 names for 2 runs' in fails(
        'compare_runs.py', 'a', 'b', '--out', 'out', '--names', 'x')
    assert "two runs are named 'a'" in fails(
        'compare_runs.py', 'a', 'a=b', '--out', 'out')
    assert "'x=' names no folder" in fails(
        'compare_runs.py', 'x=', '--out', 'out')
    assert 'none is not a directory' in fails(
        'compare_runs.py', 'none', '--out', 'out')
