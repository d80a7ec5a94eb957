"""Distributions of weights and features: Figures 1 and 3 of the paper."""
import numpy as np
import torch

from mmadder.errors import InputError
from mmadder.reporting.figures import ACCENT, COLOURS, INK, SECOND, subplots

TITLES = dict(
    weight='weights', filter='weights behind their norm',
    feature='features before batch norm',
    normalized='features behind batch norm')
# Share of the values that a picture may leave out at each end.
TAIL = 1e-4


def grid(rows, columns, width, height):
    """Return a figure and its axes, (rows, columns), sizes in inches each."""
    figure, axes = subplots(rows, columns,
                            figsize=(width * columns, height * rows))
    return figure, np.reshape(axes, (rows, columns))


def moments(counts, edges):
    """Mean and variance of a histogram's values, taken as bin centres.

    Args:
        counts (ndarray): (B,)
        edges (ndarray): (B + 1,), equal widths.
    Returns:
        (float, float): variance with Sheppard's correction, not below 0.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    shares = counts / counts.sum()
    mean = (shares * centres).sum()
    var = (shares * (centres - mean)**2).sum()
    width = edges[1] - edges[0]
    return float(mean), float(max(var - width**2 / 12, 0))


def fit(counts, edges):
    """Fit a Laplace and a normal distribution to a histogram.

    Args:
        counts (ndarray): (B,)
        edges (ndarray): (B + 1,)
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


def describe(recording, layer, quantity, step=None):
    """Numbers and histogram of a layer at one step.

    Args:
        recording (Recording)
        layer, quantity (str)
        step (int, optional): epoch or iteration, default: the last one with
            histograms.
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


def plot_fits(panels):
    """Draw Figure 1(b)-(d): histograms with their two fits.

    Args:
        panels (list[list[tuple]]): rows of (title, quantity, description of
            :func:`describe` or None).
    Returns:
        Figure
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


def plot_epochs(panels, unit='epoch', columns=None):
    """Draw Figure 3: one layer's features, one curve per epoch.

    Args:
        panels (dict[str, list[dict]]): title to descriptions of
            :func:`describe`.
        unit (str): what ``step`` counts.
        columns (int, optional): panels in a row, default: at most two.
    Returns:
        Figure: each panel has a range of its own: the legend compares.
    """
    columns = columns or min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = grid(rows, columns, 4.4, 3.2)
    axes = axes.ravel()
    for axis, (title, found) in zip(axes, panels.items()):
        for i, one in enumerate(found):
            width = one['edges'][1] - one['edges'][0]
            density = one['counts'] / one['counts'].sum() / width
            colour = COLOURS[i % len(COLOURS)]
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


def spread_steps(recording, count=3):
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
