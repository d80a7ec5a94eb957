"""tools/robustness.py, end to end."""
import json

import cv2
import pytest
from toy_classifier import run_tool

from mmadder.robustness import Attack, write_merged


def test_tool_end_to_end(small, monkeypatch, capsys):
    arguments = (small / 'small.py', small / 'small.pth', '--data-root',
                 small / 'cifar', '--images', 10, '--json',
                 small / 'a.json', '--name', 'toy')
    run_tool(monkeypatch, *arguments, '--legacy-rfgsm', '--transfer-from',
             small / 'small.py', small / 'small.pth', '--adaptive', 2)
    table = capsys.readouterr().out.splitlines()
    header = next(line for line in table if line.startswith('| network'))
    assert header.replace('|', ' ').split()[:7] == [
        'network', 'Clean', 'FGSM', 'BIM7', 'PGD7', 'MIM5', 'RFGSM5']
    assert 'LegacyRFGSM5 (moves pixels by 32/255)' in header
    assert [line.split()[1] for line in table
            if line.startswith('| toy')] == ['toy', 'toy-R', 'toy-r']
    assert any(line.startswith('R: batch dependence') for line in table)
    results = json.loads((small / 'a.json').read_text())
    assert set(results['rows']['R']) == {
        'Clean', 'FGSM', 'BIM7', 'PGD7', 'MIM5', 'RFGSM5', 'PGD7 detached',
        'PGD7 eval-made', 'LegacyRFGSM5', 'PGD7 transfer', 'APGD2 adaptive',
        'BIM10 unbounded'}
    # Same images, same seed: the same figures from a fresh file.
    (small / 'a.json').rename(small / 'b.json')
    run_tool(monkeypatch, *arguments, '--modes', 'r', '--transfer-from',
             small / 'small.py', small / 'small.pth')
    again = json.loads((small / 'a.json').read_text())
    for label, entry in again['rows']['r'].items():
        assert entry == results['rows']['r'][label]


def test_an_attack_that_broke_its_budget_ends_the_tool(
        small, monkeypatch, capsys):
    monkeypatch.setattr(
        Attack, '_build', lambda *args: lambda images, labels: images + .1)
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, small / 'small.py', small / 'small.pth',
                 '--data-root', small / 'cifar', '--images', 10, '--modes',
                 'eval', '--attacks', 'MIM', '--json',
                 small / 'new' / 'a.json')
    assert stopped.value.code == 2
    assert 'MIM5 moved a pixel by 0.1' in capsys.readouterr().err
    results = json.loads((small / 'new' / 'a.json').read_text())
    assert list(results['rows']['eval']) == ['Clean']


def test_sweeps_and_merging(small, monkeypatch, capsys):
    for name in ('a', 'b'):
        run_tool(monkeypatch, small / 'small.py', small / 'small.pth',
                 '--data-root', small / 'cifar', '--images', 10, '--modes',
                 'R', '--no-table', '--sweep', 'steps', '--json',
                 small / f'{name}.json', '--name', name,
                 '--recalibrate', 10 * (name == 'b'))
    settings = json.loads((small / 'b.json').read_text())['settings']
    assert settings['recalibrated'] == 10
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, small / 'small.py', small / 'small.pth',
                 '--data-root', small / 'cifar', '--images', 10, '--json',
                 small / 'b.json', '--name', 'b')
    assert 'recalibrated 10 (now 0)' in capsys.readouterr().err
    capsys.readouterr()
    run_tool(monkeypatch, '--merge', small / 'a.json', small / 'b.json',
             '--out', small / 'merged')
    for name in ('steps', 'features'):
        figure = cv2.imread(str(small / 'merged' / f'{name}.png'))
        assert figure.std() > 5
    assert not (small / 'merged' / 'eps.png').exists()


def test_corruptions(small, monkeypatch, capsys):
    arguments = (small / 'small.py', small / 'small.pth', '--data-root',
                 small / 'cifar', '--images', 10, '--modes', 'eval', 'max',
                 '--no-table', '--json', small / 'a.json', '--name', 'toy')
    run_tool(monkeypatch, *arguments, '--corruptions', 'contrast')
    run_tool(monkeypatch, *arguments, '--corruptions')
    lines = capsys.readouterr().out.splitlines()
    run_tool(monkeypatch, '--merge', small / 'a.json', '--out', small / 'out')
    table = (small / 'out' / 'corruptions.md').read_text().splitlines()
    assert table[0].split() == '|  | toy | toy-max |'.split()
    names = [line.split('|')[1].strip() for line in table[2:]]
    assert names == [
        'Clean', *(f'{name} severity {i}' for name in (
            'contrast', 'gaussian_noise', 'defocus_blur', 'jpeg_compression')
          for i in range(1, 6)), 'mean of the corruptions']
    assert set(table) <= set(lines)


@pytest.mark.parametrize('arguments, message', [
    (('--corruptions', 'rain'), "unknown corruption 'rain', expected one"),
    (('--neighbours', '50'), 'between 0 and 1; got 50.0'),
    (('--adaptive', '0'), 'steps must be at least 1, got 0'),
    (('--eps', '8'), 'eps is in units of pixels'),
    (('--eps', 'much'), '--eps much: expected a number such as 8/255'),
    (('--device', 'abacus'), 'argument --device: abacus: '),
    (('--images', '21'), 'the test set has 20'),
    (('--no-table', ), 'nothing is left to measure'),
    (('--sweep', 'eps', '--sweep-images', '0'), '--sweep-images must be at'),
    (('--square', '--strong-images', '-1'), '--strong-images must be at'),
    (('--images', '10', '--json', '.'), '. is a directory, expected a file'),
])
def test_wrong_input_of_the_tool(small, monkeypatch, capsys, arguments,
                                 message):
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, small / 'small.py', small / 'small.pth',
                 '--data-root', small / 'cifar', *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, '--merge', 'none.json', '--out', small)
    assert "result 'none.json' does not exist" in capsys.readouterr().err


def test_detector_end_to_end(detector, digits, monkeypatch, capsys, tmp_path):
    folder, _, _ = detector
    arguments = (folder / 'tiny.py', folder / 'tiny.pth', '--data-root',
                 digits, '--attacks', 'FGSM', 'PGD')
    for name in ('a', 'b'):
        run_tool(monkeypatch, *arguments, '--modes', 'eval', 'R', '--name',
                 name, '--images', 2, '--transfer-from', folder / 'tiny.py',
                 folder / 'tiny.pth', '--json', tmp_path / f'{name}.json')
    lines = capsys.readouterr().out.splitlines()
    assert ['network', 'Clean', 'FGSM', 'PGD7', 'PGD7 transfer',
            'PGD7 detached', 'PGD7 eval-made'] in [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in lines]
    assert [line.split()[1] for line in lines
            if line.startswith('| b')] == ['b', 'b-R']
    first, second = (json.loads((tmp_path / f'{name}.json').read_text())
                     for name in 'ab')
    assert first['rows'] == second['rows']  # the seed decides
    assert first['settings']['metric'] == 'mAP'
    table, written = write_merged(
        [tmp_path / 'a.json', tmp_path / 'b.json'], tmp_path / 'out')
    assert [path.name for path in written] == [
        'detection_table.md', 'detection_features.png']
    layers = first['features']['R']['FGSM']
    assert {'backbone.bn1', 'neck.fpn_convs.0.bn'} <= {
        layer['layer'].removeprefix('model.') for layer in layers}
    assert len(table.splitlines()) == 6
    for wrong, message in (
            (('--square', ), 'Square needs the logits of a classifier'),
            (('--corruptions', ), "MMDetection's Corrupt into the test pipe"),
            (('--neighbours', .5), 'neighbours 50% scores single images'),
            (('--images', 4), '4 images were asked for, the test set has 3'),
            (('--recalibrate', 2), '--recalibrate is for classifiers')):
        with pytest.raises(SystemExit):
            run_tool(monkeypatch, *arguments, *wrong)
        assert message in capsys.readouterr().err
