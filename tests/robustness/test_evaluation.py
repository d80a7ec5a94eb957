import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from mmadder.errors import InputError
from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    attacker_columns,
    neighbours_columns,
    norm_inputs,
    robust_inference,
    steps_sweep,
    unbounded_column,
)


def test_trace_is_of_the_first_batch_in_its_mode(toy_set):
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, 20)
    trace = evaluation.trace('R', Attack('FGSM'))
    with robust_inference(model, 'R'):
        attacked = Attack('FGSM')(model, images[:20], labels[:20])
        for label, pixels in (('Clean', images[:20]), ('FGSM', attacked)):
            assert trace[label] == norm_inputs(
                model, lambda pixels=pixels: model(pixels))
    assert trace != evaluation.trace('eval', Attack('FGSM'))


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
        (args[2].steps, args[5])) or attack(*args))
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


def test_radius_zero_changes_no_figure(toy_set):
    """Also of the points of a sweep, which one run of PGD makes."""
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, batch_size=20)
    evaluation.run(['eval', 'R'], [
        Column(), *steps_sweep([1, 2, 7], 0.), *attacker_columns(0.)])
    for row in evaluation.results['rows'].values():
        assert len({tuple(entry['correct']) for entry in row.values()}) == 1


def test_what_is_named_twice_is_measured_once(toy_set):
    """As by --modes eval eval, or --attacks FGSM FGSM."""
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, batch_size=20)
    evaluation.run(['eval', 'eval'], [Column(), Column()])
    assert evaluation.results['rows']['eval']['Clean']['images'] == 40
    with pytest.raises(InputError, match='two columns are called FGSM'):
        evaluation.run(['eval'], [Column(Attack('FGSM')),
                                  Column(Attack('FGSM', eps=.1))])


@pytest.mark.parametrize('mode', ['eval', 'R', 'r', 'max'])
@pytest.mark.parametrize('kind', ['white-box', 'detached'])
def test_paths_are_those_of_shorter_attacks(toy_set, mode, kind):
    """Image by image, each answered beside its whole batch of that step."""
    model, images, labels = toy_set
    if mode == 'eval' and kind == 'detached':
        return
    steps, evaluation = 5, Evaluation(model, images, labels, 20)
    attack = Attack('BIM', eps=.06, alpha=.02, steps=steps)
    entry = evaluation.measure(mode, Column(attack, kind))
    resisting = silent = growing = 0
    for part in (slice(0, 20), slice(20, 40)):
        batch = images[part], labels[part]
        with evaluation.inference(mode, kind == 'detached'):
            made = [batch[0], *(
                Attack('BIM', .06, .02, count)(model, *batch)
                for count in range(1, steps + 1))]
        with evaluation.inference(mode), torch.no_grad():
            logits = [model(pixels) for pixels in made]
        for i, label in enumerate(batch[1].tolist()):
            right = [step[i].argmax() == label for step in logits]
            losses = [-functional.log_softmax(step[i], 0)[label].item()
                      for step in logits]
            total = max(losses) - losses[0]
            resisting += right[-1].item()
            silent += bool(right[-1] and not all(right))
            growing += bool(
                right[-1] and max(losses) - max(losses[:-1]) > .05 * total)
    assert resisting > 0
    assert entry['path'] == dict(images=40, resisting=resisting,
                                 silent=silent, growing=growing)


def test_paths_are_of_what_is_scored(toy_set):
    """Images made for another network or mode tell nothing of this one."""
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, 20, source=model)
    evaluation.run(['R'], [
        Column(), Column(Attack('FGSM')), Column(Attack('PGD')),
        Column(Attack('PGD'), 'transfer'), *attacker_columns(),
        *neighbours_columns([.5])])
    assert [label for label, entry in evaluation.results['rows']['R'].items()
            if 'path' in entry] == ['PGD7', 'PGD7 detached']


class Brightness(nn.Module):
    """Sure of class 0 but for images between 131 and 133 of 255; its
    gradient is another function's, and leads up."""

    def __init__(self):
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(1.))

    def forward(self, images):
        mean = images.mean((1, 2, 3)) * 255
        score = torch.where((mean > 131) & (mean < 133), -1., 1.)
        score = self.sure * score + mean.detach() - mean
        return torch.stack([score, torch.zeros_like(score)], 1)


def reviewed(model, images, labels, *columns):
    """The warnings of mode eval, up to their colons."""
    evaluation = Evaluation(model, images, labels, 20)
    evaluation.run(['eval'], columns)
    row = evaluation.results['rows']['eval']
    evaluation.trace = lambda *args: {}  # of models without norms
    evaluation.review(['eval'], Attack('FGSM'))
    return row, [text.split(':')[0]
                 for text in evaluation.results['warnings']['eval']]


def test_silent_success():
    images = torch.full((4, 3, 4, 4), 128 / 255)
    labels = torch.zeros(4, dtype=torch.long)
    row, found = reviewed(Brightness(), images, labels,
                          Column(Attack('BIM')), Column(Attack('PGD')))
    assert row['BIM7']['accuracy'] == 1
    assert row['BIM7']['path'] == dict(
        images=4, resisting=4, silent=4, growing=0)
    assert found == ['silent success']


def test_incomplete_optimization(toy_set):
    """Steps too small to reach the end of the ball."""
    row, found = reviewed(
        *toy_set, Column(Attack('BIM', eps=.02, alpha=.001)))
    assert row['BIM7']['path'] == dict(
        images=40, resisting=40, silent=0, growing=40)
    assert found == ['incomplete optimization']


class Steps(nn.Module):
    """A network of rounded features: no gradient leads to the images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images * 255).round() / 255)


class Scaled(Steps):
    """So sure that the cross entropy is zero in float32."""

    def forward(self, images):
        return self.model(images) * 1e4


@pytest.mark.parametrize('masked', [Steps, Scaled])
def test_unconstrained_attack_failure(toy_set, masked):
    model, images, labels = toy_set
    row, found = reviewed(masked(model), images, labels, unbounded_column())
    entry = row['BIM10 unbounded']
    assert entry['images'] == 20 and entry['accuracy'] > .9
    assert found == ['zero gradients', 'unconstrained attack failure']


def test_an_ordinary_model_has_no_sign_of_failure(toy_set):
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, 20)
    modes = ['eval', 'R', 'r', 'max']
    evaluation.run(modes, [
        Column(), unbounded_column(),
        *(Column(Attack(name, eps=.02, alpha=.005, steps=20))
          for name in ('BIM', 'PGD'))])
    evaluation.review(modes, Attack('FGSM'))
    for mode, warnings in evaluation.results['warnings'].items():
        assert [text.split(':')[0] for text in warnings] == \
            ['batch dependence'] * (mode != 'eval')
        row = evaluation.results['rows'][mode]
        assert row['PGD20']['path']['resisting'] == 40
        assert row['BIM10 unbounded']['accuracy'] == 0


def test_files_without_paths_are_continued(toy_set, tmp_path):
    model, images, labels = toy_set
    path = tmp_path / 'a.json'
    column = Column(Attack('PGD'))
    Evaluation(model, images, labels, 20, path=path).measure('eval', column)
    kept = json.loads(path.read_text())
    entry = kept['rows']['eval']['PGD7']
    del entry['path'], entry['correct'][1]
    path.write_text(json.dumps(kept))
    evaluation = Evaluation(model, images, labels, 20, path=path)
    evaluation.review(['eval'], Attack('FGSM'))
    entry = evaluation.measure('eval', column)
    assert entry['images'] == 40 and entry['path']['images'] == 20


def test_review_keeps_warnings_and_features(toy_set, tmp_path):
    """Also those of sweeps, and those of modes reviewed before."""
    model, images, labels = toy_set
    path = tmp_path / 'a.json'
    evaluation = Evaluation(model, images, labels, 20, path=path)
    evaluation.run(['eval', 'R'], steps_sweep([1, 7], .05))
    row = evaluation.results['rows']['eval']
    row['PGD7 steps']['accuracy'] = row['PGD1 steps']['accuracy'] + .1
    for mode in ('eval', 'R'):
        evaluation.review([mode], Attack('FGSM'))
    kept = json.loads(path.read_text())
    text, = kept['warnings']['eval']
    assert 'with more steps' in text
    assert [text.split(':')[0] for text in kept['warnings']['R']] == [
        'batch dependence']
    assert {mode: list(trace) for mode, trace in kept['features'].items()} \
        == {mode: ['Clean', 'FGSM'] for mode in ('eval', 'R')}


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
    kept = json.loads(path.read_text())
    del kept['rows']['eval']['FGSM']['column']['share']  # an older file
    path.write_text(json.dumps(kept))
    Evaluation(model, images, labels, 20, path=path).measure(
        'eval', Column(Attack('FGSM')))
    path.write_text('[]')
    with pytest.raises(InputError, match='no result of tools.robustness'):
        Evaluation(model, images, labels, 20, path=path)


def test_other_labels_are_another_run(toy_set, tmp_path):
    model, images, labels = toy_set
    path = tmp_path / 'results.json'
    Evaluation(model, images, labels, path=path).measure('eval', Column())
    with pytest.raises(InputError, match='another run, with data .*delete'
                       '.* before version 0.2'):
        Evaluation(model, images, labels.flip(0), path=path)
