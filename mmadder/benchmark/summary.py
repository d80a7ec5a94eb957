"""What `tools/benchmark.py` prints of its figures."""
import statistics
from collections.abc import Sequence
from typing import Any

from .operators import BASELINE, GROUPS
from .shapes import Layer

Results = dict[Layer, dict[str, float]]  # seconds of each candidate

# (what, kernel, candidate, least mean, least of one shape), as ratios to
# conv2d's forward on one thread of an AVX-512 core. Means are over the
# shapes of `shapes.targets` with at least this many channels.
LEAST_CHANNELS = 32
TARGETS = [
    ('3x3 max', 3, 'max', 0.95, 0.88),
    ('3x3 exact', 3, 'exact', 0.6, 0),
    ('3x3 input gradient', 3, 'dX', 0.65, 0),
    ('3x3 int8', 3, 'int8', 2.5, 0),
    ('1x1 max', 1, 'max', 1.5, 0),
]
PEER_TARGETS = [('max', 'faiss', 2.5), ('max', 'cdist', 30.)]
LABEL = 36


def ratios(results: Results, candidate: str, kernel: int | None = None,
           least_channels: int = 1, other: str = BASELINE) -> list[float]:
    """Speed of a candidate over another's forward, layer by layer.

    Args:
        results: seconds of each candidate.
        candidate: whose time is below the line.
        kernel: only layers of this size.
        least_channels: only layers with as many, in and out.
        other: whose time is above the line.
    """
    return [times[other] / times[candidate]
            for layer, times in results.items()
            if candidate in times and other in times and
            kernel in (None, layer.kernel) and
            min(layer.in_channels, layer.out_channels) >= least_channels]


def _row(label, first, values):
    return f'{label:{LABEL}}{first:>10}' + ''.join(
        f'{"-":>12}' if value is None else f'{value:12.2f}'
        for value in values)


def operator_table(results: Results, groups: Sequence[str]) -> list[str]:
    """Lines of a ratio_table for each group of candidates."""
    lines = []
    for group in groups:
        names = [name for name in GROUPS[group] if name != BASELINE and
                 any(name in times for times in results.values())]
        if names:
            lines += ratio_table(
                f'{group}: conv2d forward / this', results, names)
    return lines


def ratio_table(title: str, results: Results,
                names: Sequence[str]) -> list[str]:
    """Lines: conv2d in ms, then how many times as fast the others are."""
    lines = ['', f'{title:{LABEL}}{"conv2d ms":>10}' +
             ''.join(f'{name:>12}' for name in names)]
    for layer, times in results.items():
        lines.append(_row(str(layer), f'{1e3 * times[BASELINE]:.2f}', [
            times[BASELINE] / times[name] if name in times else None
            for name in names]))
    for kernel in sorted({layer.kernel for layer in results}):
        means = [ratios(results, name, kernel, LEAST_CHANNELS)
                 for name in names]
        lines.append(_row(
            f'mean, {kernel}x{kernel}, C >= {LEAST_CHANNELS}', '', [
                statistics.geometric_mean(mean) if mean else None
                for mean in means]))
    return lines


def target_lines(results: Results) -> list[str]:
    """Lines: what the targets ask for, and what was measured."""
    lines = ['', 'Targets (an AVX-512 Zen 5 core, one thread)']
    for what, kernel, name, least_mean, least in TARGETS:
        measured = ratios(results, name, kernel, LEAST_CHANNELS)
        if measured:
            mean = statistics.geometric_mean(measured)
            lines.append(_target(f'{what}, mean', mean, least_mean))
            if least:
                lines.append(_target(f'{what}, lowest', min(measured), least))
    for name, peer, least in PEER_TARGETS:
        measured = ratios(results, name, None, LEAST_CHANNELS, other=peer)
        if measured:
            mean = statistics.geometric_mean(measured)
            lines.append(_target(f'{name} over {peer}, mean', mean, least))
    return lines


def _target(what, value, least):
    verdict = 'reached' if value >= least else 'missed'
    return f'{what:{LABEL}}{value:10.2f}{least:12.2f} {verdict}'


def scaling_lines(by_threads: dict[int, Results],
                  groups: Sequence[str]) -> list[str]:
    """Lines: geometric means of each candidate's speed-up by threads."""
    first, *others = by_threads
    lines = ['', f'{"speed-up":{LABEL}}' + ''.join(
        f'{f"{first} to {threads}":>12}' for threads in others)]
    for name in dict.fromkeys(
            [BASELINE] + [name for group in groups for name in GROUPS[group]]):
        means = []
        for threads in others:
            pairs = [(times[name], by_threads[threads][layer][name])
                     for layer, times in by_threads[first].items()
                     if name in times]
            if pairs:
                means.append(statistics.geometric_mean(
                    one / many for one, many in pairs))
        if means:
            lines.append(f'{name:{LABEL}}' + ''.join(
                f'{mean:12.2f}' for mean in means))
    return lines


def memory_table(memory: dict[Layer, dict[str, int]]) -> list[str]:
    """Lines: MiB that one call takes beside its operands.

    Args:
        memory: bytes of each candidate.
    """
    names = list(dict.fromkeys(
        name for row in memory.values() for name in row))
    lines = ['', f'{"peak of one call, MiB":{LABEL}}' +
             ''.join(f'{name:>12}' for name in names)]
    for what, row in memory.items():
        lines.append(f'{str(what):{LABEL}}' + ''.join(
            f'{row[name] / 2**20:12.1f}' if name in row else f'{"-":>12}'
            for name in names))
    return lines


def model_table(benchmark: Any, times: dict[str, float],
                memory: dict[str, int],
                errors: dict[str, float] | None = None) -> list[str]:
    """Lines: milliseconds, and time in units of the baseline's.

    Args:
        benchmark: one of :mod:`.networks`.
        times: seconds by variant.
        memory: bytes by variant; may be empty.
        errors: of the logits by variant, relative.
    """
    unit = f'/ {benchmark.baseline}'
    lines = ['', f'{benchmark.title:54}{"ms":>10}{unit:>12}' +
             (f'{"error":>10}' if errors else '') +
             (f'{"MiB":>10}' if memory else '')]
    for name in benchmark.variants:
        if name not in times:
            continue
        line = (f'  {name:52}{1e3 * times[name]:10.1f}'
                f'{times[name] / times[benchmark.baseline]:12.2f}')
        if errors:
            line += f'{errors[name]:10.0e}'
        if name in memory:
            line += f'{memory[name] / 2**20:10.0f}'
        lines.append(line)
    if hasattr(benchmark, 'summary'):
        lines.append(benchmark.summary(times))
    return lines
