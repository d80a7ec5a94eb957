"""The commands of tools/analysis about stability, as a user calls them."""
import json
from pathlib import Path

import pytest
import torch
from recordings import LAYERS, write_run

from mmadder import cli
from mmadder.layers import AdderConv2d
from mmadder.models import build_model

TOOLS = Path(__file__).parents[2] / 'tools' / 'analysis'
CIFAR = TOOLS.parents[1] / 'configs' / 'cifar10'
FEW = ['--cfg-options', 'test_dataloader.num_workers=0',
       'test_dataloader.persistent_workers=False',
       'train_dataloader.batch_size=10']


@pytest.fixture
def run(call_tool, capsys):
    """Return a function that runs a tool and gives what it printed."""

    def run_tool(tool, *args, code=None):
        call_tool(f'analysis/{tool}.py', *args, code=code)
        out, err = capsys.readouterr()
        return out if code is None else err

    return run_tool


@pytest.fixture
def runs(tmp_path):
    for name, growth in (('ann', 1.5), ('awn', 1.)):
        write_run(tmp_path / 'runs' / name, 6, growth,
                  losses=[3., 2, 1, 2, 1, .5])
    return tmp_path / 'runs'


def test_plot_losses(run, runs, tmp_path):
    text = run('plot_losses', f'A={runs / "ann"}', runs / 'awn', '--out',
               tmp_path / 'new' / 'a.png', '--json', tmp_path / 'a.json')
    assert 'test/cross_entropy: last' in text and '\nA ' in text
    found = json.loads((tmp_path / 'a.json').read_text())
    assert found['runs']['A']['validation'][
        'test/cross_entropy'][1] == [2, 2.]
    assert found['runs']['awn']['summary']['best'] == .5
    assert (tmp_path / 'new' / 'a.png').stat().st_size > 10_000
    assert "not every run has the metric 'mAP'" in run(
        'plot_losses', runs, '--metric', 'mAP', code=2)


def test_plot_distributions(run, runs, tmp_path):
    out = '--out', tmp_path / 'a.png', '--json', tmp_path / 'a.json'
    assert 'normalized' in run('plot_distributions', runs, *out)
    text = run('plot_distributions', runs, *out, '--epochs', 1, 6,
               '--layer', 'backbone.layer1.0.conv1')
    assert 'feature' in text and 'normalized' not in text
    found = json.loads((tmp_path / 'a.json').read_text())['runs']
    assert [one['step'] for one in found['ann']['feature']] == [1, 6]
    assert len(found['ann']['feature'][0]['counts']) == 100
    assert list(LAYERS)[-1] in run('plot_distributions', runs, '--list')
    assert 'did you mean backbone.layer1.0.conv' in run(
        'plot_distributions', runs, '--layer', 'layer1.0.conv1', code=2)
    assert 'epoch 9; it has those of 1 to 6' in run(
        'plot_distributions', runs, '--epochs', 9, code=2)


def test_report_stability(run, runs, tmp_path):
    text = run('report_stability', runs, '--out', tmp_path / 'page.html',
               '--json', tmp_path / 'a.json')
    assert 'variance of weights grew up to 7.59 times' in text
    assert (tmp_path / 'page.html').is_file()
    assert json.loads((tmp_path / 'a.json').read_text())['runs']['ann'][
        'layers']['backbone.layer1.0.conv1']['growth'][
            'filter_var'] == pytest.approx(1.5**5)
    (tmp_path / 'empty').mkdir()
    assert 'is no work directory' in run(
        'report_stability', tmp_path / 'empty', '--out', tmp_path, code=2)


def test_variance_study_of_a_recording(run, runs, tmp_path):
    assert 'Eq. 8' in run('variance_study', '--taps', 64)
    assert 'must be positive' in run('variance_study', '--taps', 0, code=2)
    assert 'no vis_data/config.py' in run('variance_study', runs / 'ann',
                                          code=2)
    config = runs / 'ann' / '20260101_000000' / 'vis_data' / 'config.py'
    config.write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(\n"
        "    type='AdderResNet', depth=18))\n")
    assert 'has no layer neck.fpn' in run('variance_study', runs / 'ann',
                                          code=2)
    assert 'no record of epoch 9, only of 1 to 6' in run(
        'variance_study', runs / 'ann', '--epoch', 9, code=2)


def checkpoints(config, folder):
    cfg = cli.load_config(str(config))
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(cfg)
        names.append(folder / f'epoch_{seed}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), names[-1])
    return names, model


def test_classifier_checkpoints(run, cifar, tmp_path):
    config = CIFAR / 'ann-awn-resnet20_1xb256_cifar10.py'
    names, model = checkpoints(config, tmp_path)
    data = '--data-root', cifar, *FEW
    call = (config, *names, *data, '--points', 1, '--batches', 1, '--images',
            10, '--json', tmp_path / 'a.json')
    assert 'BN re-estimated' in run('interpolate', *call)
    found = json.loads((tmp_path / 'a.json').read_text())
    assert list(found['curves']['reestimated']) == ['0.0000', '0.5000',
                                                    '1.0000']
    text = run('interpolate', '--merge', f'A={tmp_path / "a.json"}', '--out',
               tmp_path / 'a.png')
    assert 'A, accuracy/top1' in text and (tmp_path / 'a.png').is_file()
    assert 'of another run, with points 1 (now 2)' in run(
        'interpolate', *call, '--points', 2, code=2)
    assert "checkpoint 'none.pth' does not exist" in run(
        'interpolate', config, names[0], 'none.pth', *data, code=2)
    assert 'either CONFIG FIRST SECOND or --merge' in run(
        'interpolate', config, code=2)
    run('variance_study', config, names[0], *data, '--images', 8, '--json',
        tmp_path / 'b.json')
    found = json.loads((tmp_path / 'b.json').read_text())
    adders = [name for name, module in model.named_modules()
              if isinstance(module, AdderConv2d)]
    assert set(found['layers']) == set(found['disturbance']) == set(adders)


def test_detector_checkpoints(run, tmp_path, digits):
    """mAP between two checkpoints."""
    config = (CIFAR.parent / 'digits' /
              'faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py')
    names, _ = checkpoints(config, tmp_path)
    run('interpolate', config, *names, '--points', 1, '--batches', 1,
        '--data-root', digits, '--json', tmp_path / 'a.json',
        '--cfg-options', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'train_dataloader.batch_size=2')
    found = json.loads((tmp_path / 'a.json').read_text())
    assert 'pascal_voc/mAP' in found['curves']['reestimated']['0.5000']
