"""Which run is steady, where variance grows, and in which layers."""
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .distributions import Description, describe, spread_steps
from .losses import Curves, loss_gap, summarize
from .recording import Recording

Study = dict[str, Any]

# A quantity of a layer, as its growth is shown.
GROWTH = dict(filter_var='variance of weights',
              feature_channel_var='variance of features')
# Tracked mean so many standard deviations off the batch's: batch norm then
# shifts what it should centre.
LAG = 0.25
GROWN = 2.  # times
GAP = 2.  # test loss over training loss


def growth(recording: Recording, layer: str, key: str) -> float:
    """How many times as large a statistic became, last over first.

    NaN where it is not finite or was zero.
    """
    if not recording.has(layer, key):
        return math.nan
    values = recording.series(layer, key)
    with np.errstate(divide='ignore', invalid='ignore'):
        ratio = values[-1] / values[0]
    return float(ratio) if np.isfinite(ratio) else math.nan


def lag(recording: Recording, layer: str) -> np.ndarray:
    """Distance of batch norm's tracked mean from the batch's own.

    Means over the channels, in standard deviations of a channel. Tests use
    the tracked mean, training that of the batch: a large lag is why test
    loss jumps while training loss does not.

    Returns:
        (steps,), NaN where no batch norm follows.
    """
    keys = 'bn_mean', 'feature_mean', 'feature_channel_var'
    if not all(recording.has(layer, key) for key in keys):
        return np.full(len(recording.steps), math.nan)
    tracked, mean, var = (recording.series(layer, key) for key in keys)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(var > 0, abs(tracked - mean) / np.sqrt(var), math.nan)


def not_finite(recording: Recording) -> dict[str, int]:
    """Layers with a statistic that was NaN or infinite, and its first step."""
    found = {}
    for step, record in zip(recording.steps, recording.records):
        for name, entry in record['layers'].items():
            if name not in found and None in entry.values():
                found[name] = step
    return found


def studied_layers(recording: Recording) -> list[str]:
    """Adders; in a network without, what batch norm follows."""
    return recording.adders() or [
        name for name in recording.layers
        if recording.has(name, 'bn_mean')] or recording.layers


def study_run(curves: Curves, recording: Recording | None,
              metric: str) -> Study:
    """Collect the numbers of one run.

    Args:
        curves: of :func:`mmadder.runs.losses.read_curves`.
        recording: of the same run, if it has one.
        metric: the validation curve to judge by.
    Returns:
        dict: ``curve``, of :func:`mmadder.runs.losses.summarize`;
        ``loss_gap``, of :func:`mmadder.runs.losses.loss_gap`; with a
        recording also ``layers``, name to ``kind``, ``growth`` by quantity,
        ``lag`` (mean over the training), ``features`` ((mean, std) at first
        and last), ``filter_var``; their medians in ``typical``; ``worst``,
        the layer that grew most, by quantity; ``not_finite``.
    """
    study = dict(curve=summarize(curves, metric), loss_gap=loss_gap(curves))
    if recording is None:
        return study
    layers = {}
    for name in studied_layers(recording):
        layers[name] = dict(
            kind=recording.kind(name),
            growth={key: growth(recording, name, key) for key in GROWTH},
            lag=_mean(lag(recording, name)),
            features=_features(recording, name),
            filter_var=_last(recording, name, 'filter_var'))
    worst = {}
    for key in GROWTH:
        finite = {name: row['growth'][key] for name, row in layers.items()
                  if math.isfinite(row['growth'][key])}
        worst[key] = max(finite, key=finite.get, default=None)
    lags = {name: row['lag'] for name, row in layers.items()
            if math.isfinite(row['lag'])}
    worst['lag'] = max(lags, key=lags.get, default=None)
    return dict(
        study, layers=layers, worst=worst,
        typical=dict(
            lag=_median([row['lag'] for row in layers.values()]),
            filter_var=_median([row['filter_var']
                                for row in layers.values()]),
            growth={key: _median([row['growth'][key]
                                  for row in layers.values()])
                    for key in GROWTH}),
        not_finite=not_finite(recording))


def table_of_studies(studies: Mapping[str, Study],
                     metric: str) -> tuple[tuple, list[tuple]]:
    """Return header and rows: curve of each run, medians of its layers."""
    rows = []
    for name, study in studies.items():
        curve, typical = study['curve'], study.get('typical', {})
        rows.append((
            name, *(curve[key] for key in (
                'last', 'best', 'wobble', 'worst_step')),
            typical.get('filter_var'),
            *(typical.get('growth', {}).get(key) for key in GROWTH),
            typical.get('lag')))
    return ('run', f'{metric}: last', 'best', 'wobble', 'worst step',
            'weight variance', 'its growth', 'feature growth',
            'BN lag'), rows


def verdicts(studies: Mapping[str, Study],
             metric: str) -> list[tuple[str, str]]:
    """Say in a sentence per run what the numbers mean.

    Args:
        studies: name to what :func:`study_run` found.
        metric: that of the studies.
    Returns:
        run and sentence, the steadiest run first.
    """
    def wobble(name):
        value = studies[name]['curve']['wobble']
        return math.inf if value is None else value

    names = sorted(studies, key=wobble)
    finite = [name for name in names if math.isfinite(wobble(name))]
    found = []
    for name in names:
        parts = []
        if name not in finite:
            parts.append(f'too few validations of {metric} to judge')
        elif len(finite) > 1 and name == finite[0]:
            parts.append('steadiest curve')
        elif len(finite) > 1 and name == finite[-1]:
            times = wobble(name) / max(wobble(finite[0]), 1e-12)
            parts.append('least steady curve' + (
                f', {times:.1f} times the wobble of {finite[0]}'
                if times < 1000 else ''))
        broken = studies[name]['curve']['not_finite']
        if broken:
            parts.append(f'{broken} validations were not finite')
        gap = studies[name]['loss_gap']
        if gap and gap[0] >= GAP:
            parts.append(f'test loss was up to {gap[0]:.2g} times the '
                         f'training loss, at {gap[1]}')
        parts += _layer_verdicts(studies[name])
        found.append((name, _sentence(parts) or 'nothing stands out.'))
    return found


def _sentence(parts):
    text = '; '.join(parts)
    return text and text[0].upper() + text[1:] + '.'


def _layer_verdicts(study):
    if 'layers' not in study:
        return ['layers were not recorded']
    parts = []
    if study['not_finite']:
        name, step = next(iter(study['not_finite'].items()))
        parts.append(f'{len(study["not_finite"])} layers had values that '
                     f'were not finite, first {name} at {step}')
    for key, what in GROWTH.items():
        name = study['worst'][key]
        if name is None:
            continue
        ratio = study['layers'][name]['growth'][key]
        if ratio >= GROWN:
            parts.append(f'{what} grew up to {ratio:.3g} times, in {name}')
    name = study['worst']['lag']
    if name and study['layers'][name]['lag'] >= LAG:
        parts.append('batch norm tracks its mean with an error of up to '
                     f'{study["layers"][name]["lag"]:.2g} standard '
                     f'deviations, in {name}')
    return parts or ['no layer whose variance doubled or whose batch norm '
                     'lags behind']


def features_of(recording: Recording, layer: str | None = None,
                count: int = 3) -> list[Description]:
    """Describe one layer's features over the training, for Figure 3.

    Steps whose values were not finite are left out; without histograms there
    are none.
    """
    if not recording.histograms:
        return []
    layer = layer or recording.default_layer()
    return [describe(recording, layer, 'feature', step)
            for step in spread_steps(recording, count)
            if recording.has_histogram(layer, 'feature', step)]


def _features(recording, layer):
    pairs = zip(recording.series(layer, 'feature_mean'),
                np.sqrt(recording.series(layer, 'feature_var')))
    pairs = [(float(mean), float(std)) for mean, std in pairs]
    return [pairs[0], pairs[-1]]


def _last(recording, layer, key):
    return float(recording.series(layer, key)[-1])


def _mean(values):
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _median(values):
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
