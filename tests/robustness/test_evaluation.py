import json

import pytest
from torch import nn

from mmadder.errors import InputError
from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    attacker_columns,
    norm_inputs,
    robust_inference,
    steps_sweep,
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
