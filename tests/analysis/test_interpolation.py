"""The line between two checkpoints, against an interpolation by hand."""
import json

import numpy as np
import pytest
import torch

from mmadder.analysis.checkpoint_pair import load_pair
from mmadder.analysis.interpolation import (
    Interpolation,
    common_metric,
    curve_labels,
    curve_points,
    plot_interpolations,
    read_result,
    summarize,
    table_of_points,
)
from mmadder.analysis.testing import TestSet, training_batches
from mmadder.errors import InputError
from mmadder.models import build_model


def accuracy_by_hand(cfg, model, state_dict):
    model.load_state_dict(state_dict)
    model.eval()
    dataset = TestSet(cfg).loader.dataset
    inputs = torch.stack([sample['inputs'] for sample in dataset]).float()
    labels = torch.tensor(dataset.get_gt_labels())
    with torch.no_grad():
        scores = model.head.fc(model.backbone((inputs - 127) / 60)[0])
    return 100 * (scores.argmax(1) == labels).float().mean().item()


def test_metrics_along_the_line(cfg, pair, tmp_path):
    model = build_model(cfg)
    states = load_pair(model, pair)
    results = Interpolation(model, states, TestSet(cfg), points=4,
                            path=tmp_path / 'a.json').run()
    line = curve_points(results, 'interpolated', 'accuracy/top1')
    by_hand = []
    for i in range(6):
        t = i / 5
        mixed = {key: (1 - t) * value + t * states[1][key]
                 if value.is_floating_point() else value
                 for key, value in states[0].items()}
        by_hand.append((t, accuracy_by_hand(cfg, model, mixed)))
    np.testing.assert_allclose(line, by_hand, rtol=1e-5)
    assert len({y for _, y in line}) > 1
    summary = results['summary']['interpolated']['accuracy/top1']
    between = [y for t, y in by_hand if t not in (0, 1)]
    assert summary['variance'] == pytest.approx(
        np.mean((np.array(between) - np.mean(between))**2), rel=1e-4)
    assert summary['endpoints'] == [line[0][1], line[-1][1]]
    assert list(results['curves']) == ['interpolated']


def test_goes_on_where_it_stopped(cfg, pair, tmp_path, monkeypatch):
    model = build_model(cfg)
    states, path = load_pair(model, pair), tmp_path / 'a.json'

    def make(**settings):
        return Interpolation(model, states, TestSet(cfg), 2,
                             training_batches(cfg, 1), path, settings)

    evaluate, calls = TestSet.evaluate, []

    def counted(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, *args)

    monkeypatch.setattr(TestSet, 'evaluate', counted)
    with pytest.raises(KeyboardInterrupt):
        make(seed=0).run()
    assert len(read_result(path)['curves']['interpolated']) == 2
    results = make(seed=0).run()
    assert len(calls) == 9  # of 8 points, one was interrupted
    assert list(results['curves']['reestimated']) == list(
        results['curves']['interpolated'])
    make(seed=0).run()
    assert len(calls) == 9
    with pytest.raises(InputError, match=r'of another run, with seed 0 \(now'):
        make(seed=1)


def test_shares_are_shown_in_percent():
    results = dict(curves=dict(interpolated={
        f'{t:.4f}': {'pascal_voc/mAP': y, 'pascal_voc/AP50': y, 'loss': y}
        for t, y in ((0, .9), (.5, .2), (.25, .4), (1, .8))}))
    summary = summarize(results)['interpolated']
    assert summary['pascal_voc/mAP']['variance'] == pytest.approx(100)
    assert summary['loss']['variance'] == pytest.approx(.01)
    assert summary['pascal_voc/AP50']['least'] == pytest.approx(20)
    assert common_metric(dict(a=results)) == 'pascal_voc/mAP'
    assert common_metric(dict(a=results), 'loss') == 'loss'
    with pytest.raises(InputError, match="not every run has the metric 'acc"):
        common_metric(dict(a=results), 'accuracy')
    results['summary'] = summarize(results)
    figure = plot_interpolations(dict(a=results))
    assert 'variance 100' in figure.axes[0].get_legend().texts[0].get_text()


def test_files_of_something_else(tmp_path):
    path = tmp_path / 'a.json'
    with pytest.raises(InputError, match='does not exist'):
        read_result(path)
    for content in ('[]', '{', json.dumps(dict(settings=1, curves=2))):
        path.write_text(content)
        with pytest.raises(InputError, match='no result of'):
            read_result(path)
    with pytest.raises(InputError, match='no points yet'):
        common_metric(dict(a=dict(curves={})))


def line(metric, first, *rest):
    values = [first, *rest]
    points = {f'{i / (len(values) - 1):.4f}': {metric: value}
              for i, value in enumerate(values)}
    result = dict(settings={}, curves=dict(interpolated=points))
    return dict(result, summary=summarize(result))


def test_interpolations_side_by_side():
    """A column each, of a metric that all have, in a colour of its own."""
    results = dict(a=line('accuracy/top1', 9., 5., 9.),
                   b=line('accuracy/top1', 8., 6., 7., 8.))
    assert list(curve_labels(results, 'accuracy/top1')) == [
        'a, accuracy/top1', 'b, accuracy/top1']
    header, rows = table_of_points(results, 'accuracy/top1')
    assert header == ('t', '(1)', '(2)')
    assert rows == [
        ('0.00', 9, 8), ('0.33', None, 6), ('0.50', 5, None),
        ('0.67', None, 7), ('1.00', 9, 8), ('mean', 5, 6.5), ('least', 5, 6),
        ('variance', 0, .25)]
    axis, = plot_interpolations(results).axes
    assert axis.get_ylabel() == 'accuracy/top1 in percent'
    with pytest.raises(InputError, match='no validation metric in common'):
        plot_interpolations(dict(results, c=line('x', 1., 2.)))
    with pytest.raises(InputError, match='9 interpolations are too many'):
        plot_interpolations(dict.fromkeys('abcdefghi', results['a']))


def test_progress_names_the_point(cfg, pair):
    model, texts = build_model(cfg), []

    def progress(batches, text):
        texts.append(text)
        return batches

    Interpolation(model, load_pair(model, pair), TestSet(cfg), 1).run(progress)
    assert texts == [f't = {t} interpolated' for t in ('0.00', '0.50', '1.00')]
