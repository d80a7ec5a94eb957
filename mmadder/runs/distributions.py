"""Distributions of weights and features: Figures 1 and 3 of the paper."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmadder.errors import InputError
from mmadder.reporting.figures import ACCENT, INK, SECOND, colours_of, grid

from .recording import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What :func:`describe` returns.
Description = dict[str, Any]
TITLES = dict(
    weight='weights', filter='weights behind their norm',
    feature='features before batch norm',
    normalized='features behind batch norm')
# Share of the values that a picture may leave out at each end.
TAIL = 1e-4


def moments(counts: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Mean and variance of a histogram's values, taken as bin centres.

    Args:
        counts: (B,)
        edges: (B + 1,), equal widths.
    Returns:
        the variance with Sheppard's correction, not below 0.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    shares = counts / counts.sum()
    mean = (shares * centres).sum()
    var = (shares * (centres - mean)**2).sum()
    width = edges[1] - edges[0]
    return float(mean), float(max(var - width**2 / 12, 0))


def fit(counts: np.ndarray,
        edges: np.ndarray) -> dict[str, dict[str, float]]:
    """Fit a Laplace and a normal distribution to a histogram.

    Args:
        counts: (B,)
        edges: (B + 1,)
    Returns:
        dict: ``laplace`` and ``gaussian``, each with ``loc``, ``scale`` (b,
        sigma), ``variance`` and ``distance``, the total variation distance
        to the histogram: 0 is equal, 1 apart. Maximum likelihood: median and
        mean absolute deviation; mean and standard deviation.
    """
    mean, var = moments(counts, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    shares = counts / counts.sum()
    cumulative = np.concatenate([[0], np.cumsum(shares)])
    median = float(np.interp(0.5, cumulative, edges))
    b = float((shares * abs(centres - median)).sum())
    fits = {}
    for name, kind, loc, scale, variance in (
            ('laplace', torch.distributions.Laplace, median, b, 2 * b**2),
            ('gaussian', torch.distributions.Normal, mean, var**0.5, var)):
        scale = max(scale, 1e-30)
        cdf = kind(float(loc), scale).cdf(
            torch.from_numpy(edges)).numpy()
        distance = (abs(np.diff(cdf) - shares).sum() + cdf[0]
                    + 1 - cdf[-1]) / 2
        fits[name] = dict(loc=loc, scale=scale, variance=variance,
                          distance=float(distance))
    return fits


def describe(recording: Recording, layer: str, quantity: str,
             step: int | None = None) -> Description:
    """Numbers and histogram of a layer at one step.

    Args:
        recording: of the run.
        layer, quantity: names, see :meth:`Recording.histogram`.
        step: epoch or iteration, default: the last one with histograms.
    Returns:
        dict: ``step``, ``counts``, ``edges``, ``mean``, ``std`` and
        ``fits``. Mean and deviation are those of all values where the record
        of the step has them, else of the histogram.
    """
    counts, edges = recording.histogram(layer, quantity, step)
    step = max(recording.histograms) if step is None else step
    mean, var = moments(counts, edges)
    if step in recording.steps and recording.has(layer, f'{quantity}_var'):
        i = recording.steps.index(step)
        exact = [recording.series(layer, f'{quantity}_{what}')[i]
                 for what in ('mean', 'var')]
        if np.isfinite(exact).all():
            mean, var = exact
    return dict(step=step, counts=counts, edges=edges, mean=float(mean),
                std=float(var)**0.5, fits=fit(counts, edges))


def describe_runs(
        runs: Mapping[str, Recording], layers: Mapping[str, str],
        quantities: Sequence[str], steps: Sequence[int] = (),
) -> dict[str, dict[str, list[Description]]]:
    """Describe quantities of a layer of each run.

    Args:
        runs: name to recording.
        layers: name of the run to the layer.
        quantities: names; of a layer without batch norm, whose features are
            not normalized, 'normalized' has no descriptions.
        steps: epochs or iterations, default: the last with histograms.
    Returns:
        by run and quantity, one for each step.
    Raises:
        InputError: an unknown layer or step, or nothing to describe.
    """
    found = {name: {
        quantity: [describe(run, layers[name], quantity, step)
                   for step in steps or [None]]
        if _is_recorded(run, layers[name], quantity) else []
        for quantity in quantities} for name, run in runs.items()}
    if not any(chain(*(of.values() for of in found.values()))):
        raise InputError(f'none of the layers has {" or ".join(quantities)}:'
                         ' no batch norm follows')
    return found


def _is_recorded(run, layer, quantity):
    return (quantity != 'normalized' or layer not in run.layers
            or run.has(layer, 'normalized_var'))


def table_of_fits(found: Mapping[str, Mapping[str, list[Description]]],
                  unit: str = 'epoch') -> tuple[tuple, list[tuple]]:
    """Return header and rows of what :func:`describe_runs` found."""
    rows = [(name, quantity, one['step'], one['mean'], one['std'],
             *(one['fits'][kind][key] for kind in ('laplace', 'gaussian')
               for key in ('loc', 'variance', 'distance')))
            for name, quantities in found.items()
            for quantity, descriptions in quantities.items()
            for one in descriptions]
    return ('run', 'quantity', unit, 'mean', 'std', 'Laplace', 'variance',
            'distance', 'normal', 'variance', 'distance'), rows


def plot_runs(found: Mapping[str, Mapping[str, list[Description]]],
              layers: Mapping[str, str], unit: str = 'epoch') -> Figure:
    """Draw what :func:`describe_runs` found of one or of several steps."""
    titles = {name: f'{name}: {layers[name]}' for name in found}
    several = any(len(descriptions) > 1 for quantities in found.values()
                  for descriptions in quantities.values())
    if not several:
        return plot_fits([
            [(titles[name], quantity, next(iter(descriptions), None))
             for quantity, descriptions in quantities.items()]
            for name, quantities in found.items()])
    return plot_epochs({
        titles[name] + (f', {quantity}' if len(quantities) > 1 else ''):
        descriptions for name, quantities in found.items()
        for quantity, descriptions in quantities.items() if descriptions},
        unit)


def plot_fits(panels: Sequence[Sequence[tuple[
        str, str, Description | None]]]) -> Figure:
    """Draw Figure 1(b)-(d): histograms with their two fits.

    Args:
        panels: rows of (title, quantity, description).
    """
    columns = max(map(len, panels))
    figure, axes = grid(len(panels), columns, 4.3, 3.1)
    for row, line in zip(axes, panels):
        for axis, (title, quantity, found) in zip(row, line):
            axis.set_title(f'{title}\n{TITLES[quantity]}', fontsize=9)
            if found is None:
                axis.text(0.5, 0.5, 'not recorded', ha='center', color=INK,
                          transform=axis.transAxes)
                continue
            _draw_fits(axis, found)
    return figure


def _draw_fits(axis, found):
    counts, edges = found['counts'], found['edges']
    width = edges[1] - edges[0]
    axis.bar(edges[:-1], counts / counts.sum() / width, width, align='edge',
             color='#c5d5db')
    low, high = _shown_range(counts, edges)
    x = torch.linspace(low, high, 400, dtype=torch.float64)
    top = (counts / counts.sum() / width).max()
    for name, kind, colour in (
            ('laplace', torch.distributions.Laplace, SECOND),
            ('gaussian', torch.distributions.Normal, ACCENT)):
        fitted = found['fits'][name]
        density = kind(fitted['loc'], fitted['scale']).log_prob(x).exp()
        top = max(top, min(density.max().item(), 2 * top))
        axis.plot(x, density, color=colour, linewidth=1.5,
                  label=f'{name.capitalize()} {fitted["loc"]:.3g}, var '
                  f'{fitted["variance"]:.3g}')
    axis.set(xlim=(low, high), ylim=(0, 1.35 * top), ylabel='density')
    axis.legend(frameon=False, fontsize=8, loc='upper left')


def plot_epochs(panels: Mapping[str, Sequence[Description]],
                unit: str = 'epoch') -> Figure:
    """Draw Figure 3: one layer's features, one curve per epoch.

    Args:
        panels: title to descriptions.
        unit: what ``step`` counts.
    Returns:
        each panel has a range of its own: the legend compares.
    Raises:
        InputError: more epochs than can be told apart.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = grid(rows, columns, 4.4, 3.2)
    axes = axes.ravel()
    for axis, (title, found) in zip(axes, panels.items()):
        colours = colours_of([one['step'] for one in found], f'{unit}s')
        for one in found:
            colour = colours[one['step']]
            width = one['edges'][1] - one['edges'][0]
            density = one['counts'] / one['counts'].sum() / width
            axis.stairs(density, one['edges'], color=colour, fill=True,
                        alpha=0.18)
            axis.stairs(density, one['edges'], color=colour, linewidth=1.2,
                        label=f'{unit} {one["step"]}: '
                        f'{one["mean"]:.4g} ± {one["std"]:.4g}')
        axis.set_title(title, fontsize=9)
        axis.set_ylabel('density')
        axis.margins(y=0.25)
        axis.legend(frameon=False, fontsize=8, loc='upper left')
        ranges = [_shown_range(one['counts'], one['edges']) for one in found]
        axis.set_xlim(min(low for low, _ in ranges),
                      max(high for _, high in ranges))
        axis.locator_params(axis='x', nbins=5)
    for axis in axes[len(panels):]:
        axis.set_axis_off()
    return figure


def spread_steps(recording: Recording, count: int = 3) -> list[int]:
    """Choose steps with histograms at equal distances, ends included."""
    if not recording.histograms:
        raise InputError(f'{recording.path} has no histograms: record with a '
                         'smaller histogram_interval of StatisticsHook')
    steps = sorted(recording.histograms)
    chosen = np.unique(np.linspace(0, len(steps) - 1, count).round())
    return [steps[int(i)] for i in chosen]


def _shown_range(counts, edges):
    cumulative = np.cumsum(counts) / counts.sum()
    low = edges[np.searchsorted(cumulative, TAIL)]
    last = min(np.searchsorted(cumulative, 1 - TAIL) + 1, len(edges) - 1)
    high = edges[last]
    return (low, high) if high > low else (low - 1, high + 1)
