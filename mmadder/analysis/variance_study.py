"""Eq. 4-9 and 13-16 of the paper beside simulation and trained networks."""
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmadder.engine.statistics_hook import Recorder
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import build_model
from mmadder.runs.recording import Recording

from . import variance as eq

Table = tuple[tuple, list[tuple]]  # header and rows

SMALL = 1e-12
COLUMNS = (  # title, measured, formula
    ('mean of x', 'input_mean', 'input_mean_eq4'),
    ('variance of x', 'input_var', 'input_var_eq5'),
    ('mean of y', 'output_mean', 'output_mean_eq7'),
    ('variance of y, all', 'pooled_var', 'pooled_var_eq8'),
    ('one channel', 'channel_var', 'channel_var_bound'))
FEW = 4  # channels, or inputs, that are looked at tap by tap


def simulate_layer(n: int, sigma: float, mu: float, b: float,
                   channels: int = 256, samples: int = 2000,
                   delta_sigma: float = 0.1,
                   seed: int = 0) -> list[dict[str, Any]]:
    """Draw inputs and weights as the paper assumes, and measure the outputs.

    Args:
        n: taps.
        sigma, mu, b: x = max(0, N(0, sigma^2)), W from
            Laplace(mu, b), all independent.
        channels, samples: filters, and inputs to each of them.
        delta_sigma: of a random disturbance of x.
        seed: of what is drawn.
    Returns:
        rows of ``name``, ``formula``, ``measured`` and ``note``;
        those of Eq. 9 and 16 only where Eq. 8 is positive.
    """
    generator = torch.Generator().manual_seed(seed)
    x = (sigma * torch.randn(samples, n, generator=generator,
                             dtype=torch.float64)).clamp(min=0)
    weight = _laplace(mu, b, (channels, n), generator)
    delta = delta_sigma * torch.randn(
        samples, n, generator=generator, dtype=torch.float64)
    output = -torch.cdist(x, weight, p=1)
    changed = -torch.cdist(x - delta, weight, p=1) - output
    few = x[:, None], weight[:FEW]
    aligned = eq.disturbance_ann(  # (samples, FEW)
        *few, delta[:, None].abs() * (few[0] - few[1]).sign())
    taps = x[:FEW, None] - weight  # (FEW, channels, n)
    tap_change = abs(taps) - abs(taps - delta[:FEW, None])
    tau, scale = eq.difference(sigma, mu, b)
    mean, var = eq.folded_moments(tau, scale)
    channel_var = output.var(0, correction=0).mean().item()
    normalized = _normalized_rows(
        x, weight, output, n, tau, scale, delta_sigma)
    return [
        _row('Eq. 4  mean of x', eq.rectified_mean(sigma), x.mean()),
        _row('Eq. 5  variance of x', eq.rectified_var(sigma),
             x.var(correction=0)),
        _row('Eq. 6  mean of |x - W - tau|', scale,
             abs(taps - tau).mean(), 'exact if x - W is Laplace'),
        _row('Eq. 7  mean of y', eq.output_mean_bound(n, tau, scale),
             output.mean(), 'lower bound'),
        _row('       same, Laplace', -n * mean, output.mean(),
             'exact if x - W is Laplace'),
        _row('Eq. 8  variance of y, pooled',
             eq.output_var_bound(n, tau, scale), output.var(correction=0),
             'over all channels: not the one of batch norm'),
        _row('       same, Laplace', n * var, output.var(correction=0),
             'exact if x - W is Laplace'),
        _row('       variance of y, one channel',
             eq.channel_var_bound(n, eq.rectified_var(sigma)), channel_var,
             'what batch norm sees; n Var(x) is an upper bound'),
        *normalized[:1],
        _row('Eq. 13 ANN, change of a tap', delta[:FEW].abs().mean(),
             tap_change.abs().mean(), 'less where delta reaches past W'),
        _row('Eq. 14 CNN, random delta',
             eq.disturbance_var_cnn(n, delta_sigma, mu, 2 * b**2),
             (delta @ weight.T).var(correction=0)),
        _row('Eq. 14 ANN, aligned delta',
             eq.disturbance_var_ann(n, delta_sigma),
             aligned.var(correction=0), 'delta has the sign of x - W'),
        _row('       its mean shift', eq.aligned_shift(n, delta_sigma),
             aligned.mean()),
        _row('       ANN, random delta',
             eq.random_disturbance_var_ann(n, delta_sigma),
             changed.var(correction=0), '2.75 times Eq. 14'),
        _row('Eq. 15 ANN, aligned delta, behind BN',
             eq.next_disturbance_var(eq.disturbance_var_ann(n, delta_sigma),
                                     channel_var),
             aligned.var(correction=0).item() / channel_var,
             'divided by the variance of one channel, not by Eq. 8'),
        *normalized[1:],
    ]


def _normalized_rows(x, weight, output, n, tau, scale, shift):
    """Eq. 9 and 16, which exist where Eq. 8 is positive."""
    if eq.output_var_bound(n, tau, scale) <= 0:
        return []
    normalized = eq.normalize_with_bounds(output, n, tau, scale)
    moved = eq.normalize_disturbed(
        -torch.cdist(x - shift, weight, p=1), n, tau, scale, shift)
    return [
        _row('Eq. 9  deviation of y, one channel', 1,
             normalized.var(0, correction=0).mean().sqrt(),
             'bounds in place of moments'),
        _row('Eq. 16 move of y, all of x moved', 0,
             (moved - normalized).mean(),
             'takes n E[delta] off; outputs move by less')]


def study_layer(entry: Mapping[str, Any], taps: int) -> dict[str, Any]:
    """Compare one layer's statistics with Eq. 4-8.

    Args:
        entry: one layer in a record of ``StatisticsHook``.
        taps: n.
    Returns:
        measured values beside the formulas'. ``sigma`` is fitted to
        the second moment of the input, so that Eq. 4 and 5 are tested by how
        it splits into mean and variance. Eq. 7 and 8 take the layer's own
        first two moments of input and weight.
    """
    mean, var = entry['input_mean'], entry['input_var']
    sigma = math.sqrt(2 * (var + mean**2))
    tau = mean - entry['filter_mean']
    scale = max(math.sqrt((var + entry['filter_var']) / 2), SMALL)
    folded_mean, folded_var = eq.folded_moments(tau, scale)
    return dict(
        taps=taps, sigma=sigma,
        input_mean=mean, input_mean_eq4=eq.rectified_mean(sigma),
        input_var=var, input_var_eq5=eq.rectified_var(sigma),
        output_mean=entry['feature_mean'],
        output_mean_eq7=eq.output_mean_bound(taps, tau, scale),
        output_mean_laplace=-taps * folded_mean,
        tracked_mean=entry.get('bn_mean'),
        channel_var=entry['feature_channel_var'],
        tracked_var=entry.get('bn_var'),
        channel_var_bound=eq.channel_var_bound(taps, var),
        pooled_var=entry['feature_var'],
        pooled_var_eq8=eq.output_var_bound(taps, tau, scale),
        pooled_var_laplace=taps * folded_var)


def study_record(record: Mapping[str, Any],
                 taps: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Compare all adder layers of a record with Eq. 4-8.

    Args:
        record: with ``layers``, as ``StatisticsHook`` writes them.
        taps: of :func:`count_taps`.
    Returns:
        of :func:`study_layer` by layer; layers with values
        that are not finite are left out.
    Raises:
        InputError: the record has no adder layers, or the model other ones.
    """
    adders = {name: entry for name, entry in record['layers'].items()
              if entry['kind'] == 'adder'}
    if not adders:
        raise InputError('there are no adder layers in this network: the '
                         'study is about them')
    unknown = sorted(set(adders) - set(taps))
    if unknown:
        raise InputError(f'the model has no layer {unknown[0]}, which was '
                         'recorded: give the config of that training')
    needed = ('input_mean', 'input_var', 'filter_mean', 'filter_var',
              'feature_mean', 'feature_var', 'feature_channel_var')
    return {name: study_layer(entry, taps[name])
            for name, entry in adders.items()
            if all(entry.get(key) is not None for key in needed)}


def study_model(model: nn.Module,
                run: Callable[[], Any]) -> dict[str, dict[str, Any]]:
    """Compare the adder layers of a model with Eq. 4-8.

    Args:
        model: in evaluation mode.
        run: passes a batch through the model.
    Returns:
        of :func:`study_record`.
    """
    recorder = Recorder(model, histograms=False)
    with torch.no_grad():
        run()
    layers, _ = recorder.close()
    return study_record(dict(layers=layers), count_taps(model))


def count_taps(model: nn.Module) -> dict[str, int]:
    """Terms of the sum in each adder layer, n = C_in / groups * K_h * K_w."""
    return {name: module.weight[0].numel()
            for name, module in model.named_modules()
            if isinstance(module, AdderConv2d)}


def taps_of_run(recording: Recording) -> dict[str, int]:
    """Count taps with the config that MMEngine keeps beside a recording.

    Raises:
        InputError: it is not there.
    """
    configs = sorted(recording.path.glob('*/vis_data/config.py'))
    if not configs:
        raise InputError(f'no vis_data/config.py in {recording.path}: give '
                         'the config of the training with --config')
    return count_taps(build_model(Config.fromfile(configs[-1])))


@torch.no_grad()
def measure_disturbance(model: nn.Module, run: Callable[[], Any],
                        ratio: float = 0.1,
                        seed: int = 0) -> dict[str, dict[str, float]]:
    """Disturb the input of each adder layer, and look at its output.

    Only the layer itself sees the disturbance, so that each layer's formula
    has its own assumptions. Outputs whose window reaches into the padding
    are left out where there are others.

    Args:
        model: of any kind, with adder layers.
        run: passes a batch through the model.
        ratio: deviation of the random disturbance, in units of that of the
            layer's input.
        seed: of the disturbance.
    Returns:
        by layer: ``delta_sigma``; ``eq14``, variance of the
        output's change after Eq. 14; ``random``, for delta independent of
        the weights; ``measured``; the same behind batch norm, Eq. 15:
        ``next_eq15``, ``next_measured``.
    """
    generator = torch.Generator().manual_seed(seed)
    found, handles = {}, []

    def watch(name, layer):
        def after(module, inputs, output):
            if name in found:
                return  # a layer that several levels share
            found[name] = {}
            input = inputs[0].float()
            sigma = ratio * input.std().item()
            delta = torch.randn(
                input.shape, generator=generator).to(input) * sigma
            change = module.forward(input - delta) - output
            found[name] = _disturbance(
                module, sigma, _inner(change, module), output)
        handles.append(layer.register_forward_hook(after))

    for name, module in model.named_modules():
        if isinstance(module, AdderConv2d):
            watch(name, module)
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def table_of_layers(layers: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return header and rows of what :func:`study_record` found."""
    titles = [part for title, *_ in COLUMNS for part in (title, '/ formula')]
    return ('layer', 'n', *titles), [
        (name, row['taps'], *(_bound(key, row[key])
                              for _, *keys in COLUMNS for key in keys))
        for name, row in layers.items()]


def _bound(key, value):
    """A bound of a variance that is not positive says nothing."""
    return None if key == 'pooled_var_eq8' and value <= 0 else value


def table_of_disturbances(layers: Mapping[str, Mapping[str, float]]) -> Table:
    """Return header and rows of what :func:`measure_disturbance` found."""
    return ('layer', 'delta', 'variance', '/ Eq. 14', '/ n s^2', 'behind BN',
            '/ Eq. 15'), [
        (name, *(row[key] for key in (
            'delta_sigma', 'measured', 'eq14', 'random', 'next_measured',
            'next_eq15'))) for name, row in layers.items()]


def _disturbance(layer, sigma, change, output):
    taps = layer.weight[0].numel()
    measured = change.transpose(0, 1).flatten(1).var(
        1, correction=0).mean().item()
    var = output.transpose(0, 1).flatten(1).var(
        1, correction=0).mean().item()
    var = max(var, SMALL)
    eq14 = eq.disturbance_var_ann(taps, sigma)
    return dict(
        taps=taps, delta_sigma=sigma, eq14=eq14,
        random=eq.random_disturbance_var_ann(taps, sigma), measured=measured,
        channel_var=var, next_eq15=eq.next_disturbance_var(eq14, var),
        next_measured=eq.next_disturbance_var(measured, var))


def _inner(output, layer):
    """Outputs whose window lies in the picture; all if there are none."""
    rows, columns = (-(-pad // step)
                     for pad, step in zip(layer.padding, layer.stride))
    height, width = output.shape[2:]
    inner = output[:, :, rows:height - rows, columns:width - columns]
    return inner if inner.numel() else output


def _laplace(mu, b, shape, generator):
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    uniform = uniform.clamp(SMALL, 1 - SMALL) - 0.5
    return mu - b * uniform.sign() * torch.log1p(-2 * uniform.abs())


def _row(name, formula, measured, note=''):
    return dict(name=name, formula=float(formula), measured=float(measured),
                note=note)
