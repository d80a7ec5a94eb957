"""The CIFAR-10 configs through the tools: train, test, convert, -R."""
import json
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import torch
from official_adder_net import make_adder_net

from mmadder.checkpoints.state_dict import read_state_dict

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'cifar10' / '{}-resnet20_1xb256_cifar10.py'
SMALL = '''
_base_ = {base!r}
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
loader = dict(num_workers=0, persistent_workers=False, batch_size=10)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
'''


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a tool in this process."""
    monkeypatch.chdir(tmp_path)

    def run_tool(tool, *args):
        path = str(ROOT / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')

    return run_tool


@pytest.fixture
def small(tmp_path):
    """Return a function (variant): a config for 20 pictures."""

    def write(variant, text=''):
        path = tmp_path / f'{variant}-{len(list(tmp_path.iterdir()))}.py'
        path.write_text(SMALL.format(
            base=str(CONFIG).format(variant)) + text)
        return path

    return write


def test_trains_on_an_image_folder_and_tests_with_robust_inference(
        run, small, cifar, tmp_path):
    config = small('ann-awn')
    run('train.py', config, '--data-root', cifar, '--work-dir', 'work',
        '--record')
    record, = (tmp_path / 'work').glob('*/vis_data/statistics.jsonl')
    assert len(json.loads(record.read_text())['layers']) == 21
    scalars = record.with_name('scalars.json').read_text()
    assert '"test/cross_entropy": ' in scalars
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    assert 'head.bn.running_var' in read_state_dict(str(checkpoint))
    robust = small('ann-awn', 'custom_hooks = [dict(type="RobustInference'
                   'Hook", mode="R", include_logit_bn=False)]\n'
                   'optim_wrapper = dict(optimizer=dict(type="Elsewhere"))')
    scores = []
    for path in (config, robust):
        run('test.py', path, checkpoint, '--data-root', cifar, '--out',
            'out.pkl')
        predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
        scores.append(torch.stack([p['pred_score'] for p in predictions]))
    assert scores[0].shape == (20, 10)
    assert not torch.allclose(*scores)


def test_final_training_on_all_pictures(run, small, cifar, tmp_path, capsys):
    """Held-out pictures that are trained on validate nothing."""
    final = [small('ann'), '--data-root', cifar, '--work-dir', 'work',
             '--cfg-options', 'train_dataloader.dataset.split=trainval']
    with pytest.raises(SystemExit) as stopped:
        run('train.py', *final)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert 'trainval has the pictures of the validation split' in error
    assert '--no-validate' in error
    run('train.py', *final, '--no-validate')
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()
    log, = (tmp_path / 'work').glob('*/*.log')
    assert 'Epoch(train) [1][2/2]' in log.read_text()
    assert 'Epoch(val)' not in log.read_text()


@pytest.mark.parametrize('name, hint', [
    ('SGDD', ', did you mean SGD'), ('mmpretrain.Lambb', '')])
def test_misspelt_optimizer(run, small, cifar, tmp_path, capsys, name, hint):
    with pytest.raises(SystemExit) as stopped:
        run('train.py', small('cnn'), '--data-root', cifar, '--work-dir',
            'work', '--cfg-options', f'optim_wrapper.optimizer.type={name}')
    assert stopped.value.code == 2
    assert ('optim_wrapper.optimizer.type: there is no optimizer '
            f'{name!r}{hint}') in capsys.readouterr().err
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_convert_checkpoint(run, cifar, tmp_path, capsys):
    """Out of DataParallel, into AWN, and back to plain adders."""
    official = {f'module.{key}': value for key, value in
                make_adder_net(20).state_dict().items()}
    torch.save(official, 'official.pth')
    ann, awn = (str(CONFIG).format(name) for name in ('ann', 'ann-awn'))
    run('convert_checkpoint.py', ann, 'official.pth', 'ann.pth')
    run('convert_checkpoint.py', awn, 'ann.pth', 'awn.pth', '--source', 'ann')
    run('convert_checkpoint.py', ann, 'awn.pth', 'back.pth')
    assert 'outputs deviate by' in capsys.readouterr().out
    first, back = map(read_state_dict, ('ann.pth', 'back.pth'))
    assert first.keys() == back.keys()
    for key, value in first.items():
        torch.testing.assert_close(back[key], value, rtol=1e-5, atol=1e-5)
    key = 'module.layer1.0.conv1.adder'
    assert torch.equal(first['backbone.layer1.0.conv1.weight'],
                       official[key])


@pytest.mark.parametrize('variant, options, message', [
    ('ann', (), 'say with --source'),
    ('ann-awn', ('--source', 'awn'), 'is ann or ws, not awn'),
    ('cnn', ('--source', 'ann'), 'has no adder layers'),
    ('ann-ws', ('--source', 'ann'), 'cannot hold the weights of an ann'),
])
def test_refused_conversions_write_nothing(
        run, tmp_path, capsys, variant, options, message):
    state = make_adder_net(20).state_dict()
    torch.save({f'backbone.{key}'.replace('.adder', '.weight'): value
                for key, value in state.items()}, 'in.pth')
    with pytest.raises(SystemExit) as stopped:
        run('convert_checkpoint.py', str(CONFIG).format(variant), 'in.pth',
            'out.pth', *options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()
