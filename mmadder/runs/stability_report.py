"""One self-contained HTML page: which training is steady, and why not."""
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmadder.errors import InputError
from mmadder.reporting.figures import colours_of
from mmadder.reporting.pages import embedded, swatch, write_page
from mmadder.reporting.tables import number

from .distributions import plot_epochs
from .losses import choose_curve, read_curves
from .metrics import METRICS, TEST_LOSS, label
from .recording import is_recorded, read_recording
from .stability import GROWTH, features_of, study_run, verdicts
from .stability_pictures import curve_title, plot_curve, plot_maps, short_name

TEMPLATE = '''\
{% extends 'page.html' %}
{% from 'parts.html' import picture, table %}
{% block content %}
<h2>In short</h2>
<dl>
{% for name, text in verdicts %}
<dt>{{ name }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl>
{% if lengths %}
<p class="note">The runs are not of one length, last validation at:
{{ lengths }}.</p>
{% endif %}
<h2>Curves</h2>
<div class="pictures">
{% for name, source in curves.items() %}
{{ picture(source, name ~ ' of all runs') }}
{% endfor %}
</div>
{{ table(('run', 'last', 'best (at)', 'wobble', 'worst step',
          'weight variance', 'its growth', 'feature growth', 'BN lag'),
         rows) }}
<p class="note">Last, best, wobble and worst step are of {{ metric }}. Wobble:
mean distance of a validation from the mean of its two neighbours, behind the
first fifth of the curve. Worst step: the largest step for the worse there.
The right half has medians over the adder layers (in a network without adders,
over those with a batch norm): variance at the end, how many times as large
variances became, and how many standard deviations the tracked mean is off
that of the batch.</p>
{% if not layers %}
<h2>Layers</h2>
<p class="note">No run was recorded: train with --record of
tools/train.py.</p>
{% else %}
<h2>Layers that change most</h2>
<p class="note">The {{ worst_rows }} layers of each run whose variance of
weights or features has changed most from the first record to the last.
Weights are those that meet the input, behind weight normalization where there
is one.</p>
{% for name, found in layers.items() %}
<h3>{{ name }}</h3>
{% if found.not_finite %}
<p>Not finite: {{ found.not_finite }}</p>
{% endif %}
{{ table(('layer', 'weight variance', 'its growth', 'feature growth',
          'features, first', 'features, last', 'BN lag'), found.rows) }}
{% endfor %}
{% endif %}
{% for heading, text, pictures in maps if pictures %}
<h2>{{ heading }}</h2>
<p class="note">{{ text }} One row per layer, input at the top; grey: not
finite.</p>
<div class="pictures">
{% for name, source in pictures.items() %}
{{ picture(source, heading ~ ', ' ~ name) }}
{% endfor %}
</div>
{% endfor %}
{% if features %}
<h2>Features of one layer over the training</h2>
<p class="note">Before batch norm, with mean ± standard deviation: the more
the curves move and the wider they are, the less batch norm can track.</p>
<div class="pictures">
{% for name, source in features.items() %}
{{ picture(source, 'feature distributions of ' ~ name) }}
{% endfor %}
</div>
{% endif %}
{% endblock %}
'''
MAPS = dict(
    filter_var=(
        'Where the variance of weights grows',
        'Variance of the weights that meet the input, behind weight '
        'normalization where there is one, over that of the first record.'),
    feature_channel_var=(
        'Where the variance of features grows',
        'Variance within a channel before batch norm, mean over the '
        'channels, over that of the first record.'),
    lag=('Where batch norm lags behind',
         'Distance of the tracked mean, which tests use, from that of the '
         'batch, which training uses, in standard deviations of a channel. '
         'Dark layers are where test loss jumps and training loss does '
         'not.'))
WORST_ROWS = 5


def write_stability_report(
        out: str | Path, runs: Mapping[str, str | Path],
        metric: str | None = None, layer: str | None = None,
        title: str = 'Stability of trainings') -> tuple[Path, dict[str, Any]]:
    """Write the page.

    Args:
        out: file that ends with .html, or a folder, for ``index.html`` in it.
        runs: name to work directory. One without a recording has its curves
            only.
        metric: validation metric to judge by, default: the test loss if all
            runs have it, else their accuracy or mAP.
        layer: whose features to show, default: the deepest adder of the
            backbone.
        title: of the page.
    Returns:
        the page; the numbers in it, ``metric`` and ``runs``.
    Raises:
        InputError: runs that have no metric in common, more of them than can
            be told apart, or no such layer.
    """
    curves = {name: read_curves(path) for name, path in runs.items()}
    metric = choose_curve(curves, metric)
    recordings = {name: read_recording(path) for name, path in runs.items()
                  if is_recorded(path)}
    if layer is not None:
        if not recordings:
            raise InputError('no run has a recording, so there is no layer '
                             f'{layer}')
        for recording in recordings.values():
            recording.require_layer(layer)
    studies = {name: study_run(curves[name], recordings.get(name), metric)
               for name in runs}
    out = Path(out)
    page = out if out.suffix == '.html' else out / 'index.html'
    write_page(
        page, TEMPLATE, title=title, metric=label(metric),
        verdicts=verdicts(studies, metric), lengths=_lengths(curves, metric),
        curves={curve_title(key): embedded(plot_curve(curves, key))
                for key in _shown(curves, metric)},
        rows=_curve_rows(studies), worst_rows=WORST_ROWS,
        layers={name: _worst_layers(studies[name]) for name in recordings},
        maps=[(heading, text, {
            name: embedded(figure)
            for name, figure in plot_maps(recordings, key).items()})
            for key, (heading, text) in MAPS.items()],
        features=_features(recordings, layer))
    return page, dict(metric=metric, runs=studies)


def _lengths(curves, metric):
    """Say where the runs end, unless they all end at one step."""
    lasts = {name: run['validation'][metric][-1][0]
             for name, run in curves.items()}
    return len(set(lasts.values())) > 1 and ', '.join(
        f'{name} {last}' for name, last in lasts.items())


def _shown(curves, metric):
    """The metric, others and training loss, as far as all have them."""
    keys = [key for key in dict.fromkeys((metric, TEST_LOSS, *METRICS))
            if all(key in run['validation'] for run in curves.values())]
    if all(run['train'] for run in curves.values()):
        keys.append('train')
    return keys


def _curve_rows(studies):
    rows, colours = [], colours_of(studies)
    for name, study in studies.items():
        curve, typical = study['curve'], study.get('typical', {})
        rows.append((
            swatch(colours[name], name), curve['last'],
            f'{number(curve["best"])} ({curve["best_step"]})',
            number(curve['wobble'], 3), number(curve['worst_step'], 3),
            number(typical.get('filter_var'), 3),
            *(_times(typical.get('growth', {}).get(key)) for key in GROWTH),
            number(typical.get('lag'), 2)))
    return rows


def _worst_layers(study):
    def rank(row):
        return max((abs(math.log(ratio)) for ratio in row['growth'].values()
                    if ratio > 0), default=-math.inf)

    ranked = sorted(study['layers'].items(), key=lambda item: rank(item[1]),
                    reverse=True)
    rows = []
    for layer, row in ranked[:WORST_ROWS]:
        first, last = (f'{number(mean, 3)} ± {number(std, 3)}'
                       for mean, std in row['features'])
        rows.append((
            short_name(layer), number(row['filter_var'], 3),
            *(_times(row['growth'][key]) for key in GROWTH), first, last,
            number(row['lag'], 2)))
    return dict(rows=rows, not_finite=', '.join(
        f'{layer} (from {step})'
        for layer, step in study['not_finite'].items()))


def _features(recordings, layer):
    """Return pictures of one layer's features by run and layer."""
    pictures = {}
    for name, recording in recordings.items():
        found = features_of(recording, layer)
        if found:
            title = f'{name}: {layer or recording.default_layer()}'
            pictures[title] = embedded(
                plot_epochs({title: found}, recording.unit))
    return pictures


def _times(value):
    return '-' if value is None or math.isnan(value) else f'{value:.3g}×'
