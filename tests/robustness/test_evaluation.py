"""Columns, resuming, tables and the tool, on a toy classifier."""
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10
from torch import nn

from mmadder.errors import InputError
from mmadder.models import build_model
from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    PixelClassifier,
    RobustInferenceWarning,
    attacker_columns,
    eps_sweep,
    load_pixels,
    markdown_table,
    norm_inputs,
    recalibrate,
    robust_inference,
    steps_sweep,
    table_columns,
    write_merged,
)
from mmadder.robustness.data import balanced_sample

ROOT = Path(__file__).parents[2]
CONFIG = f'''
_base_ = {str(ROOT / 'configs/cifar10/ann-resnet20_1xb256_cifar10.py')!r}
model = dict(backbone=dict(stem_channels=4, base_channels=4),
             head=dict(in_channels=16))
'''


def toy(seed=0):
    """Images with one bright corner of four, and a net that finds it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.Flatten(), nn.Linear(4 * 36, 4))
    labels = torch.arange(40) % 4
    images = torch.rand(40, 3, 8, 8) * .5
    for image, label in zip(images, labels):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row:row + 4, column:column + 4] += .15
    optimizer = torch.optim.SGD(model.parameters(), .1)
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), images, labels


@pytest.fixture(scope='module')
def toy_set():
    return toy()


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def test_columns_are_the_papers():
    assert [column.label for column in table_columns()] == [
        'Clean', 'FGSM', 'BIM7', 'PGD7', 'MIM5', 'RFGSM5']
    assert all(column.attack.eps == 8 / 255 for column in
               table_columns()[1:])
    assert [column.label for column in attacker_columns()] == [
        'PGD7 detached', 'PGD7 eval-made']
    first = eps_sweep([.07, .1])[0]
    assert first.label == 'PGD7 eps=0.07'
    assert first.attack.alpha == pytest.approx(.01)
    assert [c.label for c in steps_sweep([1, 50])] == [
        'PGD1 steps', 'PGD50 steps']


@pytest.mark.parametrize('mode', ['eval', 'R', 'r'])
def test_measures_what_it_says(toy_set, mode):
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, batch_size=20, seed=5)
    attack = Attack('PGD', eps=.06, alpha=.02)
    entry = evaluation.measure(mode, Column(attack))
    expected = []
    for i, part in enumerate((slice(0, 20), slice(20, 40))):
        with evaluation.inference(mode):
            adversarial = attack(model, images[part], labels[part], 5 + i)
            expected.append(accuracy(model, adversarial, labels[part]))
    assert entry['accuracy'] == pytest.approx(sum(expected) / 2)
    assert entry['images'] == 40
    assert 0 < entry['max_perturbation'] <= .06 + 1e-6
    clean = evaluation.measure(mode, Column())
    assert clean['accuracy'] > entry['accuracy']
    assert clean['max_perturbation'] == 0


def test_kinds_of_attackers(toy_set):
    """Each differentiates its own model; all are scored alike."""
    model, images, labels = toy_set
    images, labels = images[:20], labels[:20]
    other, _, _ = toy(1)
    evaluation = Evaluation(model, images, labels, source=other)
    attack = Attack('FGSM', eps=.05)
    made = {'eval-made': attack(model, images, labels),
            'transfer': attack(other, images, labels)}
    for detach in (False, True):
        with robust_inference(model, 'R', detach_statistics=detach):
            made['detached' if detach else 'white-box'] = attack(
                model, images, labels)
    for kind, adversarial in made.items():
        with robust_inference(model, 'R'):
            expected = accuracy(model, adversarial, labels)
        found = evaluation.measure('R', Column(attack, kind))
        assert found['accuracy'] == pytest.approx(expected), kind
    with pytest.raises(InputError, match='needs another model'):
        Evaluation(model, images, labels).measure(
            'eval', Column(attack, 'transfer'))


def test_shrinking_attacks_are_scored_in_whole_batches(toy_set):
    """Square and AutoAttack drop images: with -R, other statistics."""
    model, images, labels = toy_set
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0])))
    evaluation = Evaluation(model, images, labels, batch_size=20)
    evaluation.measure('R', Column(
        Attack('AutoAttack', eps=.04, steps=5), images=15))
    hook.remove()
    assert min(seen) < 20 and seen[-1] == 20
    assert evaluation.results['rows']['R']['AutoAttack']['images'] == 20


def test_trace_is_of_the_first_batch_in_its_mode(toy_set):
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, 20)
    trace = evaluation.trace('R', Attack('FGSM'))
    with robust_inference(model, 'R'):
        attacked = Attack('FGSM')(model, images[:20], labels[:20])
        for label, pixels in (('Clean', images[:20]), ('FGSM', attacked)):
            assert trace[label] == norm_inputs(model, lambda: model(pixels))
    assert trace != evaluation.trace('eval', Attack('FGSM'))


def test_batches():
    model, images, labels = toy()
    sizes = {
        size: [len(part) for _, part in Evaluation(
            model, images, labels, batch_size=size).batches]
        for size in (20, 17, 15, 100)}
    assert sizes == {20: [20, 20], 17: [17, 23], 15: [15, 15, 10], 100: [40]}


def test_sorted_batches_are_warned_of(toy_set):
    model, images, labels = toy_set
    order = labels.argsort()
    evaluation = Evaluation(model, images[order], labels[order], 20)
    with pytest.warns(RobustInferenceWarning, match='2 of 4 classes'):
        evaluation.measure('R', Column())


def test_goes_on_where_it_was_interrupted(toy_set, tmp_path):
    model, images, labels = toy_set

    def interrupt(todo):
        yield from list(todo)[:1]
        raise KeyboardInterrupt

    arguments = dict(batch_size=10, path=tmp_path / 'a.json',
                     facts=dict(name='toy'))
    column = Column(Attack('PGD', eps=.05))
    with pytest.raises(KeyboardInterrupt):
        Evaluation(model, images, labels, **arguments).measure(
            'R', column, interrupt)
    kept = json.loads((tmp_path / 'a.json').read_text())
    assert len(kept['rows']['R']['PGD7']['correct']) == 1
    done = []
    again = Evaluation(model, images, labels, **arguments).measure(
        'R', column, lambda todo: done.extend(todo) or todo)
    assert [job.batch for job in done] == [1, 2, 3]
    whole = Evaluation(model, images, labels, batch_size=10).measure(
        'R', column)
    assert again == whole
    assert not list(tmp_path.glob('*.part'))


def test_common_images_are_made_once(toy_set, monkeypatch):
    """And are those of separate runs."""
    model, images, labels = toy_set
    columns = [*steps_sweep([1, 3, 7], .05), *attacker_columns(.05),
               Column(Attack('PGD', eps=.05))]
    modes = ['eval', 'R']
    made = []
    attack = Evaluation.attack
    monkeypatch.setattr(Evaluation, 'attack', lambda *args: made.append(
        (args[2].steps, args[-2])) or attack(*args))
    together = Evaluation(model, images, labels, batch_size=20)
    together.run(modes, columns)
    # eval; R; R detached, in each of two batches.
    assert made == [(7, {1, 3}), (7, {1, 3}), (7, set())] * 2
    for mode in modes:
        for column in columns:
            if mode == 'eval' and column.kind != 'white-box':
                continue
            alone = Evaluation(model, images, labels, batch_size=20)
            assert alone.measure(mode, column) == \
                together.results['rows'][mode][column.label]
    assert 'PGD7 detached' not in together.results['rows']['eval']


def test_wrong_modes_are_found_before_attacks(toy_set):
    _, images, labels = toy_set
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    evaluation = Evaluation(model, images, labels)
    with pytest.raises(InputError, match='has no batch norm'):
        evaluation.run(['eval', 'R'], [Column(Attack('PGD'))])
    assert evaluation.results['rows'] == {}
    with pytest.raises(InputError, match="mode must be one of .* got 'Q'"):
        evaluation.measure('Q', Column())


def test_files_of_other_runs_are_refused(toy_set, tmp_path):
    model, images, labels = toy_set
    path = tmp_path / 'a.json'
    Evaluation(model, images, labels, 20, path=path).measure(
        'eval', Column(Attack('FGSM')))
    with pytest.raises(InputError, match='another run, with seed 0 .now 1'):
        Evaluation(model, images, labels, 20, seed=1, path=path)
    with pytest.raises(InputError, match='another run, with images 40'):
        Evaluation(model, images[:20], labels[:20], 20, path=path)
    with pytest.raises(InputError, match='FGSM with other settings'):
        Evaluation(model, images, labels, 20, path=path).measure(
            'eval', Column(Attack('FGSM', eps=.1)))
    path.write_text('[]')
    with pytest.raises(InputError, match='no result of this tool'):
        Evaluation(model, images, labels, 20, path=path)


def test_balanced_sample():
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    chosen = balanced_sample(labels, 30, seed=0)
    assert len(set(chosen)) == 30
    assert sorted(labels[chosen].bincount().tolist()) == [3, 13, 14]
    assert chosen != sorted(chosen)
    assert chosen == balanced_sample(labels, 30, seed=0)
    assert chosen != balanced_sample(labels, 30, seed=1)


def test_recalibration():
    """Tracked statistics become those of the images; nothing else does."""
    model, images, _ = toy()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate(model, images, batch_size=20)
    norm = model[1]
    features = model[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, features.mean(1))
    torch.testing.assert_close(
        norm.running_var, features.var(1), rtol=1e-2, atol=0)
    assert norm.momentum == .1
    assert not any(module.training for module in model.modules())
    changed = [key for key, value in model.state_dict().items()
               if not torch.equal(value, before[key])]
    assert changed == ['1.running_mean', '1.running_var',
                       '1.num_batches_tracked']


@pytest.fixture
def small(cifar, tmp_path):
    """A folder with a small config and its checkpoint, beside the data."""
    config = tmp_path / 'small.py'
    config.write_text(CONFIG)
    torch.manual_seed(0)
    model = build_model(Config.fromfile(config))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'small.pth')
    return tmp_path


def test_pixels_of_a_config(small):
    cfg = Config.fromfile(small / 'small.py')
    cfg.test_dataloader.dataset.data_root = str(small / 'cifar')
    classifier = PixelClassifier(build_model(cfg))
    images, labels = load_pixels(cfg, classifier, 10, seed=0)
    assert images.shape == (10, 3, 32, 32)
    assert sorted(labels.tolist()) == list(range(10))
    name = CIFAR10.METAINFO['classes'][labels[0]]
    files = [cv2.imread(str(small / 'cifar' / 'test' / name / f'{i}.png'))
             for i in range(2)]
    found = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert any(np.array_equal(found, file[..., ::-1]) for file in files)
    with pytest.raises(InputError, match='99 images were asked.* has 20'):
        load_pixels(cfg, classifier, 99)


def run_tool(monkeypatch, *args):
    path = str(ROOT / 'tools' / 'robustness.py')
    monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
    runpy.run_path(path, run_name='__main__')


def test_tool_end_to_end(small, monkeypatch, capsys):
    arguments = (small / 'small.py', small / 'small.pth', '--data-root',
                 small / 'cifar', '--images', 10, '--json',
                 small / 'a.json', '--name', 'toy')
    run_tool(monkeypatch, *arguments, '--legacy-rfgsm', '--transfer-from',
             small / 'small.py', small / 'small.pth')
    table = capsys.readouterr().out.splitlines()
    header = next(line for line in table if line.startswith('| network'))
    assert header.startswith(
        '| network | Clean | FGSM | BIM7 | PGD7 | MIM5 | RFGSM5 |')
    assert 'LegacyRFGSM5 (moves pixels by 32/255)' in header
    assert [line.split(' | ')[0] for line in table
            if line.startswith('| toy')] == ['| toy', '| toy-R', '| toy-r']
    assert any(line.startswith('R: batch dependence') for line in table)
    results = json.loads((small / 'a.json').read_text())
    assert set(results['rows']['R']) == {
        'Clean', 'FGSM', 'BIM7', 'PGD7', 'MIM5', 'RFGSM5', 'PGD7 detached',
        'PGD7 eval-made', 'LegacyRFGSM5', 'PGD7 transfer'}
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
                 '--recalibrate', 20 * (name == 'b'))
    settings = json.loads((small / 'b.json').read_text())['settings']
    assert settings['recalibrated'] == 20
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, small / 'small.py', small / 'small.pth',
                 '--data-root', small / 'cifar', '--images', 10, '--json',
                 small / 'b.json', '--name', 'b')
    assert 'recalibrated 20 (now 0)' in capsys.readouterr().err
    capsys.readouterr()
    run_tool(monkeypatch, '--merge', small / 'a.json', small / 'b.json',
             '--out', small / 'merged')
    for name in ('steps', 'features'):
        figure = cv2.imread(str(small / 'merged' / f'{name}.png'))
        assert figure.std() > 5
    assert not (small / 'merged' / 'eps.png').exists()


def test_merged_table(toy_set, tmp_path):
    model, images, labels = toy_set
    for name, count in (('x', 40), ('y', 20)):
        evaluation = Evaluation(
            model, images, labels, 20, path=tmp_path / f'{name}.json',
            facts=dict(name=name))
        evaluation.measure('eval', Column())
        evaluation.measure('R', Column())
        evaluation.measure('R', Column(Attack('FGSM'), images=count))
    table, written = write_merged(
        [tmp_path / 'x.json', tmp_path / 'y.json'], tmp_path / 'out')
    assert written[0].read_text() == table + '\n'
    lines = table.splitlines()
    assert lines[0] == '| network | Clean | FGSM |'
    assert [line.split(' | ')[0] for line in lines[2:]] == [
        '| x', '| x-R', '| y', '| y-R']
    assert lines[2].endswith(' |  |')  # no such attack in this mode
    assert lines[5].split(' | ')[2].startswith('(')  # on fewer images
    del evaluation.results['rows']['R']['Clean']
    *_, alone = markdown_table([evaluation.results]).splitlines()
    assert alone.split(' | ')[2].startswith('(')  # all that this row has
    other = Evaluation(model, images.flip(0), labels.flip(0), 20,
                       path=tmp_path / 'z.json', facts=dict(name='z'))
    other.measure('eval', Column())
    with pytest.raises(InputError, match='their data differs'):
        write_merged([tmp_path / 'x.json', tmp_path / 'z.json'], tmp_path)
    assert '| z | ' in markdown_table([other.results])
    with pytest.raises(InputError, match='two runs have the same name'):
        write_merged([tmp_path / 'x.json'] * 2, tmp_path)
    other = Evaluation(model, images, labels, 20, path=tmp_path / 'w.json',
                       facts=dict(name='w'))
    other.measure('R', Column(Attack('FGSM', eps=.1)))
    with pytest.raises(InputError, match='FGSM is another attack in w'):
        write_merged([tmp_path / 'x.json', tmp_path / 'w.json'], tmp_path)


def test_the_papers_tables(toy_set, tmp_path):
    """1: eval and R; 3: r and R; mode by mode, columns of the paper."""
    model, images, labels = toy_set
    for name in ('x', 'y'):
        evaluation = Evaluation(
            model, images, labels, 20, path=tmp_path / f'{name}.json',
            facts=dict(name=name))
        evaluation.run(['eval', 'R', 'r'], [
            Column(), Column(Attack('FGSM')), Column(Attack('BIM', steps=1))])
    _, written = write_merged(
        [tmp_path / 'x.json', tmp_path / 'y.json'], tmp_path / 'out')
    assert [path.name for path in written] == [
        'table.md', 'table1.md', 'table3.md']
    for path, rows in zip(written[1:], (['x', 'y', 'x-R', 'y-R'],
                                        ['x-r', 'y-r', 'x-R', 'y-R'])):
        lines = path.read_text().splitlines()
        assert lines[0] == '| network | Clean | FGSM |'
        assert [line.split(' | ')[0][2:] for line in lines[2:]] == rows


@pytest.mark.parametrize('arguments, message', [
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
    assert 'none.json does not exist' in capsys.readouterr().err
