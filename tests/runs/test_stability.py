"""Figures and the report, from recordings whose numbers are known."""
import base64
import re

import cv2
import numpy as np
import pytest
import torch
from recordings import write_records, write_run, write_scalars

from mmadder.errors import InputError
from mmadder.runs.distributions import (
    describe,
    fit,
    moments,
    plot_epochs,
    plot_fits,
    spread_steps,
)
from mmadder.runs.losses import (
    choose_curve,
    loss_gap,
    plot_losses,
    read_curves,
    smoothness,
    summarize,
)
from mmadder.runs.recording import parse_runs, read_recording
from mmadder.runs.stability import growth, lag, study_run, verdicts
from mmadder.runs.stability_report import write_stability_report

LAYER = 'backbone.layer1.0.conv2'
STEADY = [60., 70, 75, 78, 80, 82, 84, 86, 88, 90]
JUMPY = [60., 70, 75, 78, 88, 70, 92, 74, 96, 90]


@pytest.fixture
def runs(tmp_path):
    """Two runs of ten epochs: one steady, one whose weights grow."""
    write_run(tmp_path / 'steady', 10, growth=1., values=STEADY)
    write_run(tmp_path / 'jumpy', 10, growth=1.5, values=JUMPY)
    return parse_runs([str(tmp_path)])


# ------------------------------------------------------- distributions --


@pytest.mark.parametrize('name, draw', [
    ('laplace', torch.distributions.Laplace(.32, 6.65)),
    ('gaussian', torch.distributions.Normal(-.002, .03))])
def test_fits_tell_laplace_from_gaussian(name, draw):
    torch.manual_seed(0)
    values = draw.sample((200_000, )).double().numpy()
    counts, edges = np.histogram(values, 100)
    found = fit(counts, edges)
    mean, var = moments(counts, edges)
    assert mean == pytest.approx(values.mean(), abs=.02 * values.std())
    assert var == pytest.approx(values.var(), rel=.02)
    assert found[name]['variance'] == pytest.approx(values.var(), rel=.03)
    assert found[name]['distance'] < .03
    other, = set(found) - {name}
    assert found[other]['distance'] > .08


def test_fits_of_one_value():
    counts, edges = np.array([0, 5, 0]), np.array([0., 1, 2, 3])
    assert fit(counts, edges)['gaussian']['loc'] == pytest.approx(1.5)
    assert fit(np.array([3]), np.array([2., 2.]))['laplace']['loc'] == 2


def test_description_has_the_moments_of_all_values(runs):
    recording = read_recording(runs['jumpy'])
    found = describe(recording, LAYER, 'feature', 2)
    var = 2 * 1.5**2
    assert found['mean'] == pytest.approx(-100 * var)
    assert found['std'] == pytest.approx((50 * var)**.5)
    assert found['fits']['gaussian']['distance'] < .03
    assert spread_steps(recording) == [1, 5, 10]
    figure = plot_epochs({'a': [found], 'b': [describe(
        recording, LAYER, 'feature')]})
    assert 'epoch 2: -450 ± 15' in figure.axes[0].get_legend().texts[
        0].get_text()
    figure = plot_fits([[('a', 'feature', found), ('a', 'weight', None)]])
    assert len(figure.axes) == 2


def test_each_panel_of_epochs_has_its_own_range(runs):
    """Or the panel of a narrow network shows a spike."""
    panels = {name: [describe(read_recording(path), LAYER, 'feature', step)
                     for step in (1, 10)] for name, path in runs.items()}
    figure = plot_epochs(panels)
    for axis, found in zip(figure.axes, panels.values()):
        low, high = axis.get_xlim()
        assert low == pytest.approx(min(one['edges'][0] for one in found),
                                    abs=.1 * (high - low))
        assert high == pytest.approx(max(one['edges'][-1] for one in found),
                                     abs=.1 * (high - low))


# -------------------------------------------------------------- curves --


def test_smoothness_by_hand():
    line = smoothness(list(range(20)))
    assert line['wobble'] == 0 and line['worst_step'] == 0
    # Behind the first fifth: 4, 8, 4, 8, 4; neighbours' means are 4 and 8.
    jumps = smoothness([0, 50, 4, 8, 4, 8, 4][:1] + [9, 4, 8, 4, 8, 4])
    assert jumps['wobble'] == 4 and jumps['worst_step'] == 4
    rising = smoothness([9, 9, 1, 2, 4, 7, 11], less_is_better=True)
    assert rising['worst_step'] == 4
    assert smoothness([1., 2, 3, 4])['wobble'] is None
    broken = smoothness([1., np.nan, *range(10), np.inf])
    assert broken['not_finite'] == 2 and broken['wobble'] == 0


def test_curves_of_a_run(tmp_path):
    path = write_run(tmp_path, 4, values=[.2, .5, .9, .8],
                     metric='pascal_voc/mAP', losses=[2., 1, .5, 3])
    run = read_curves(path)
    assert run['unit'] == 'epoch'
    assert run['train'][0] == (1, pytest.approx((3 / 5 + 3 / 10) / 2))
    found = summarize(run, 'pascal_voc/mAP')
    assert (found['best'], found['best_step'], found['last']) == (90, 3, 80)
    # Training loss is 3 / step at steps 35 and 40 of the fourth epoch.
    assert loss_gap(run) == (pytest.approx(3 / (3 / 70 + 3 / 80)), 4)
    found = summarize(run, 'test/cross_entropy')
    assert (found['best'], found['best_step'], found['last']) == (.5, 3, 3)
    assert len(plot_losses(dict(a=run), 'test/cross_entropy').axes) == 1
    assert len(plot_losses(dict(a=run), 'pascal_voc/mAP').axes) == 2


def test_runs_need_a_metric_in_common(tmp_path):
    runs = {name: read_curves(write_run(tmp_path / name, 2, metric=metric))
            for name, metric in (('a', 'accuracy/top1'),
                                 ('b', 'pascal_voc/mAP'))}
    with pytest.raises(InputError, match='no validation metric in common: a '
                       'has accuracy/top1; b has pascal'):
        choose_curve(runs)
    with pytest.raises(InputError, match="run b has no metric 'accuracy"):
        choose_curve(runs, 'accuracy/top1')
    assert choose_curve(dict(a=runs['a'])) == 'accuracy/top1'


# -------------------------------------------------------------- report --


def test_growth_and_lag_by_hand(runs):
    recording = read_recording(runs['jumpy'])
    assert growth(recording, LAYER, 'filter_var') == pytest.approx(1.5**9)
    # Tracked 4 off, deviation sqrt(16 * 2 * 1.5^epoch).
    np.testing.assert_allclose(
        lag(recording, LAYER),
        [4 / (32 * 1.5**epoch)**.5 for epoch in range(1, 11)])


def test_verdicts_name_runs_and_layers(runs):
    studies = {name: study_run(read_curves(path), read_recording(path),
                               'accuracy/top1')
               for name, path in runs.items()}
    found = verdicts(studies, 'accuracy/top1')
    assert [name for name, _ in found] == ['steady', 'jumpy']
    assert found[0][1].startswith('Steadiest curve')
    assert found[1][1].startswith('Least steady curve')
    assert 'variance of weights grew up to 38.4 times, in backbone' in \
        found[1][1]
    assert 'grew' not in found[0][1]
    # Both lag: 4 over sqrt(32) is 0.71.
    assert 'up to 0.71 standard deviations' in found[0][1]


def test_broken_validations_are_named_without_a_recording(tmp_path):
    write_scalars(tmp_path / '1', range(1, 10), values=[
        *range(50, 58), float('nan')])
    studies = dict(a=study_run(read_curves(tmp_path), None, 'accuracy/top1'))
    (_, text), = verdicts(studies, 'accuracy/top1')
    assert text == '1 validations were not finite; layers were not recorded.'


def test_layers_that_broke_are_named(tmp_path):
    def change(epoch, entries):
        if epoch >= 3:
            entries[LAYER]['feature_mean'] = None

    folder = tmp_path / '1'
    write_records(folder, range(1, 6), change=change)
    write_scalars(folder, range(1, 6))
    study = study_run(read_curves(tmp_path), read_recording(tmp_path),
                      'accuracy/top1')
    assert study['not_finite'] == {LAYER: 3}
    page, _ = write_stability_report(tmp_path / 'out', dict(a=tmp_path))
    assert f'first {LAYER} at 3' in page.read_text()


def test_report_is_one_file(runs, tmp_path):
    runs['<b> & no recording'] = tmp_path / 'bare'
    write_scalars(tmp_path / 'bare' / '1', range(1, 8), values=JUMPY[:7])
    page, found = write_stability_report(tmp_path / 'out', runs)
    text = page.read_text()
    assert page == tmp_path / 'out' / 'index.html'
    assert list(tmp_path.glob('out/*')) == [page]
    assert not re.search(r'https?:|<script|<link|url\(', text)
    assert '&lt;b&gt; &amp; no recording' in text and '<b>' not in text
    assert 'Layers were not recorded' in text or \
        'layers were not recorded' in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == text.count('<img ') == 2 + 3 * 2 + 2
    for picture in pictures:
        data = np.frombuffer(base64.b64decode(picture), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).std() > 5
    assert found['metric'] == 'accuracy/top1'
    assert found['runs']['jumpy']['worst']['filter_var'].startswith('backb')


def test_report_of_one_layer(runs, tmp_path):
    page, _ = write_stability_report(
        tmp_path / 'a.html', runs, layer='neck.fpn_convs.0.conv')
    assert 'feature distributions of jumpy: neck.fpn_convs.0.conv' in \
        page.read_text()
    with pytest.raises(InputError, match='did you mean neck.fpn_convs.0'):
        write_stability_report(tmp_path / 'b.html', runs,
                               layer='neck.fpn_conv.0.conv')
    assert not (tmp_path / 'b.html').exists()
