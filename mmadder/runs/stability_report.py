"""One self-contained HTML page: which training is steady, and why not."""
import base64
import html
import io
import math
from pathlib import Path

from mmadder.analysis.detection_report import STYLE
from mmadder.errors import InputError
from mmadder.reporting.figures import COLOURS
from mmadder.reporting.tables import number

from .distributions import plot_epochs
from .losses import TEST_LOSS, choose_curve, is_loss, read_curves
from .recording import FILE, read_recording
from .run import METRICS
from .stability import GROWTH, features_of, study_run, verdicts
from .stability_pictures import curve_title, plot_curve, plot_maps, short_name

MORE_STYLE = '''
body { overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide td { white-space: nowrap; }
.wide th { vertical-align: bottom; overflow-wrap: normal; }
.pictures { display: grid; gap: .6rem;
     grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.pictures img { width: 100%; max-width: 34rem; }
dt { font-weight: 650; margin-top: .6rem; } dd { margin: 0; }
.swatch { display: inline-block; width: .8em; height: .8em;
     margin-right: .4em; border-radius: 2px; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
@media (max-width: 40rem) { body { margin: 1rem auto; } .wide { font-size: 13px; }
     td, th { padding-right: .6rem; } }
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


def write_stability_report(out, runs, metric=None, layer=None,
                           title='Stability of trainings'):
    """Write the page.

    Args:
        out (str | Path): file that ends with .html, or a folder, for
            ``index.html`` in it.
        runs (dict[str, Path]): name to work directory. One without a
            recording has its curves only.
        metric (str, optional): validation metric to judge by, default: the
            test loss if all runs have it, else their accuracy or mAP.
        layer (str, optional): whose features to show, default: the deepest
            adder of the backbone.
        title (str)
    Returns:
        (Path, dict): the page; the numbers in it, ``metric`` and ``runs``.
    Raises:
        InputError: runs that have no metric in common, or no such layer.
    """
    curves = {name: read_curves(path) for name, path in runs.items()}
    metric = choose_curve(curves, metric)
    recordings = {name: read_recording(path) if any(
        Path(path).glob(f'*/vis_data/{FILE}')) else None
        for name, path in runs.items()}
    if layer is not None:
        if not any(recordings.values()):
            raise InputError('no run has a recording, so there is no layer '
                             f'{layer}')
        for recording in filter(None, recordings.values()):
            recording.require_layer(layer)
    studies = {name: study_run(curves[name], recordings[name], metric)
               for name in runs}
    out = Path(out)
    page = out if out.suffix == '.html' else out / 'index.html'
    page.parent.mkdir(parents=True, exist_ok=True)
    sections = [
        ('In short', _verdicts(verdicts(studies, metric))
         + _lengths(curves, metric)),
        ('Curves', _curves(curves, studies, metric)),
        *_layer_sections(recordings, studies, layer)]
    body = ''.join(f'<h2>{html.escape(name)}</h2>{content}'
                   for name, content in sections)
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title>'
        f'<style>{STYLE}{MORE_STYLE}</style>'
        f'<h1>{html.escape(title)}</h1>{body}</html>\n', encoding='utf-8')
    return page, dict(metric=metric, runs=studies)


def _verdicts(found):
    return '<dl>' + ''.join(
        f'<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>'
        for name, text in found) + '</dl>'


def _lengths(curves, metric):
    lasts = {name: run['validation'][metric][-1][0]
             for name, run in curves.items()}
    if len(set(lasts.values())) == 1:
        return ''
    text = ', '.join(f'{name} {last}' for name, last in lasts.items())
    return ('<p class="note">The runs are not of one length, last validation '
            f'at: {html.escape(text)}.</p>')


def _curves(curves, studies, metric):
    rows = []
    for i, (name, study) in enumerate(studies.items()):
        curve, typical = study['curve'], study.get('typical', {})
        rows.append((
            _swatch(i) + html.escape(name), number(curve['last']),
            f'{number(curve["best"])} ({curve["best_step"]})',
            number(curve['wobble'], 3), number(curve['worst_step'], 3),
            number(typical.get('filter_var'), 3),
            *(_times(typical.get('growth', {}).get(key)) for key in GROWTH),
            number(typical.get('lag'), 2)))
    pictures = [_picture(plot_curve(curves, key),
                         f'{curve_title(key)} of all runs')
                for key in _shown(curves, metric)]
    return (
        f'<div class="pictures">{"".join(pictures)}</div>'
        + _table(('run', 'last', 'best (at)', 'wobble',
                  'worst step', 'weight variance', 'its growth',
                  'feature growth', 'BN lag'), rows)
        + f'<p class="note">Last, best, wobble and worst step are of '
        f'{html.escape(metric)}{_unit(metric)}. Wobble: mean distance of a '
        'validation from the mean of its two neighbours, behind the first '
        'fifth of the curve. Worst step: the largest step for the worse '
        'there. The right half has medians over the adder layers (in a '
        'network without adders, over those with a batch norm): variance at '
        'the end, how many times as large variances became, and how many '
        'standard deviations the tracked mean is off that of the batch.</p>')


def _unit(metric):
    return '' if is_loss(metric) else ' in percent'


def _shown(curves, metric):
    """The metric, others and training loss, as far as all have them."""
    keys = [key for key in dict.fromkeys((metric, TEST_LOSS, *METRICS))
            if all(key in run['validation'] for run in curves.values())]
    if all(run['train'] for run in curves.values()):
        keys.append('train')
    return keys


def _layer_sections(recordings, studies, layer):
    recorded = {name: recording for name, recording in recordings.items()
                if recording is not None}
    if not recorded:
        return [('Layers', '<p class="note">No run was recorded: train with '
                 '--record of tools/train.py.</p>')]
    sections = [
        ('Layers that change most', '<p class="note">The five of each run '
         'whose variance of weights or features has changed most from the '
         'first record to the last. Weights are those that meet the input, '
         'behind weight normalization where there is one.</p>' + ''.join(
            _worst_layers(name, studies[name]) for name in recorded))]
    for key, (heading, text) in MAPS.items():
        pictures = ''.join(
            _picture(figure, f'{heading}, {name}')
            for name, figure in plot_maps(recorded, key).items())
        if pictures:
            sections.append((heading, f'<p class="note">{text} One row per '
                             'layer, input at the top; grey: not finite.</p><div '
                             f'class="pictures">{pictures}</div>'))
    panels = {f'{name}: {layer or recording.default_layer()}':
              features_of(recording, layer)
              for name, recording in recorded.items()}
    panels = {title: found for title, found in panels.items() if found}
    if panels:
        pictures = ''.join(
            _picture(plot_epochs(
                {title: found}, next(iter(recorded.values())).unit),
                f'feature distributions of {title}')
            for title, found in panels.items())
        sections.append((
            'Features of one layer over the training',
            '<p class="note">Before batch norm, with mean ± standard '
            'deviation: the more the curves move and the wider they are, '
            'the less batch norm can track.</p>'
            f'<div class="pictures">{pictures}</div>'))
    return sections


def _worst_layers(name, study):
    def rank(row):
        return max((abs(math.log(ratio)) for ratio in row['growth'].values()
                    if ratio > 0), default=-math.inf)

    ranked = sorted(study['layers'].items(), key=lambda item: rank(item[1]),
                    reverse=True)
    rows = []
    for layer, row in ranked[:WORST_ROWS]:
        (mean, std), (last_mean, last_std) = row['features']
        rows.append((
            html.escape(short_name(layer)), number(row['filter_var'], 3),
            *(_times(row['growth'][key]) for key in GROWTH),
            f'{number(mean, 3)} ± {number(std, 3)}',
            f'{number(last_mean, 3)} ± {number(last_std, 3)}',
            number(row['lag'], 2)))
    note = ''
    if study['not_finite']:
        layers = ', '.join(f'{layer} (from {step})' for layer, step
                           in study['not_finite'].items())
        note = f'<p>Not finite: {html.escape(layers)}</p>'
    return f'<h3>{html.escape(name)}</h3>{note}' + _table(
        ('layer', 'weight variance', 'its growth', 'feature growth',
         'features, first', 'features, last', 'BN lag'), rows)


def _times(value):
    return '-' if value is None or math.isnan(value) else f'{value:.3g}×'


def _swatch(i):
    return (f'<span class="swatch" style="background:'
            f'{COLOURS[i % len(COLOURS)]}"></span>')


def _table(head, rows):
    """HTML table; cells are HTML already."""
    cells = ''.join(f'<th>{html.escape(name)}</th>' for name in head)
    body = ''.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row)
                   + '</tr>' for row in rows)
    return (f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>')


def _picture(figure, alt):
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    data = base64.b64encode(buffer.getvalue()).decode()
    return (f'<img src="data:image/png;base64,{data}" '
            f'alt="{html.escape(alt)}">')
