"""Read what ``StatisticsHook`` wrote during a training."""
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmadder.errors import InputError
from mmadder.text import nearest

FILE = 'statistics.jsonl'
QUANTITIES = ('weight', 'filter', 'feature', 'normalized')


class Recording:
    """Statistics of the layers of one run, iteration by iteration.

    Args:
        path: the work directory, for errors.
        records: of the hook, by rising iteration.
        histograms: files by epoch or iteration.
        unit: 'epoch' or 'iteration', what histograms and curves count.
    Attributes:
        layers (list[str]): names in the order in which the model runs.
        steps (list[int]): epoch or iteration of each record.
    """

    def __init__(self, path: Path, records: list[dict[str, Any]],
                 histograms: Mapping[int, Path], unit: str) -> None:
        self.path, self.records, self.unit = path, records, unit
        self.histograms = histograms
        self.steps = [record['epoch' if unit == 'epoch' else 'iter']
                      for record in records]
        self.layers = list(dict.fromkeys(
            name for record in records for name in record['layers']))

    def kind(self, layer: str) -> str:
        """Return 'adder' or 'conv'."""
        return self._entries(layer)[-1]['kind']

    def adders(self) -> list[str]:
        """Names of the adder layers."""
        return [name for name in self.layers if self.kind(name) == 'adder']

    def series(self, layer: str, key: str) -> np.ndarray:
        """One statistic over the training.

        Args:
            layer: module name, as 'backbone.layer1.0.conv1'.
            key: statistic, as 'weight_var'.
        Returns:
            (len(steps),) float64; NaN where it was not finite or
            not recorded.
        Raises:
            InputError: no such layer, or the layer never has the statistic.
        """
        self.require_layer(layer)
        entries = [record['layers'].get(layer, {}) for record in self.records]
        if not any(key in entry for entry in entries):
            known = sorted({name for entry in entries for name in entry
                            if name != 'kind'})
            raise InputError(f'{layer} in {self.path} has no {key!r}'
                             f'{nearest(key, known)}; it has '
                             f'{", ".join(known)}')
        return np.array([_number(entry.get(key)) for entry in entries])

    def record_at(self, step: int | None = None) -> dict[str, Any]:
        """Return the record of an epoch or iteration, default: the last.

        Raises:
            InputError: there is none.
        """
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise InputError(f'{self.path} has no record of {self.unit} '
                             f'{step}, only of {_ranges(self.steps)}')
        return self.records[self.steps.index(step)]

    def has(self, layer: str, key: str) -> bool:
        """Whether a statistic of a layer was ever recorded."""
        return any(key in entry for entry in self._entries(layer))

    def histogram(self, layer: str, quantity: str, step: int | None = None,
                  ) -> tuple[np.ndarray, np.ndarray]:
        """Counts of a layer's values in 100 bins.

        Args:
            layer: module name.
            quantity: 'weight', 'filter', 'feature' or 'normalized'.
            step: epoch or iteration, default: the last.
        Returns:
            counts (B,) and edges (B + 1,).
        Raises:
            InputError: no such layer, quantity or step, or a damaged file.
        """
        self.require_layer(layer)
        if not self.histograms:
            raise InputError(f'{self.path} has no histograms: record with a '
                             'smaller histogram_interval of StatisticsHook')
        step = max(self.histograms) if step is None else step
        if step not in self.histograms:
            raise InputError(
                f'{self.path} has no histograms of {self.unit} {step}; it '
                f'has those of {_ranges(sorted(self.histograms))}')
        file = self.histograms[step]
        key = f'{layer}/{quantity}'
        try:
            with np.load(file) as arrays:
                if key in arrays:
                    counts, (low, high) = arrays[key], arrays[f'{key}/range']
                    return counts, np.linspace(low, high, len(counts) + 1)
                known = [name for name in QUANTITIES
                         if f'{layer}/{name}' in arrays]
        except (EOFError, OSError, KeyError, ValueError,
                zipfile.BadZipFile) as error:
            raise InputError(f'{file} is damaged: {error}') from error
        raise InputError(
            f'{layer} has no histogram of {quantity!r} in {file}, only of '
            f'{", ".join(known) or "nothing"}: values were not finite, or '
            'no batch norm follows')

    def has_histogram(self, layer: str, quantity: str, step: int) -> bool:
        """Whether :meth:`histogram` has something to give."""
        try:
            self.histogram(layer, quantity, step)
        except InputError:
            return False
        return True

    def require_layer(self, layer: str) -> None:
        """Raise InputError, with the nearest name, unless recorded."""
        if layer not in self.layers:
            raise InputError(
                f'no layer {layer!r} in {self.path}'
                f'{nearest(layer, self.layers)}; --list shows all '
                f'{len(self.layers)}')

    def default_layer(self) -> str:
        """The deepest adder of the backbone, or layer without adders."""
        names = self.adders() or self.layers
        inside = [name for name in names if name.startswith('backbone.')
                  and 'downsample' not in name]
        return (inside or names)[-1]

    def _entries(self, layer):
        return [record['layers'][layer] for record in self.records
                if layer in record['layers']]


def is_recorded(path: str | Path) -> bool:
    """Whether a work directory has a recording."""
    return any(Path(path).glob(f'*/vis_data/{FILE}'))


def read_recording(path: str | Path) -> Recording:
    """Read the recording of a run.

    Args:
        path: work directory. Of the iterations that several of
            its time-stamped folders have, as a resumed run leaves them, the
            latest folder's count, and what earlier folders have behind its
            first is of a training that was given up.
    Raises:
        InputError: none there, an empty or a damaged one. A last line that
            was cut off when a run was killed is left out.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f'work directory {path} does not exist')
    files = sorted(path.glob(f'*/vis_data/{FILE}'))
    if not files:
        raise InputError(f'no vis_data/{FILE} in {path}: train with '
                         '--record of tools/train.py, or with '
                         "dict(type='StatisticsHook') in custom_hooks")
    records, histograms, unit = [], {}, 'epoch'
    for file in files:
        new = list(_read_lines(file))
        if new:
            records = [record for record in records
                       if record['iter'] < new[0]['iter']] + new
            histograms = {step: npz for step, npz in histograms.items()
                          if step < new[0][_counted(npz)]}
        for npz in file.parent.glob('histograms/*_*.npz'):
            histograms[int(npz.stem.rpartition('_')[2])] = npz
            unit = 'iteration' if _counted(npz) == 'iter' else unit
    if not records:
        raise InputError(f'{files[-1]} is empty: the first record is written '
                         'at the end of an epoch')
    epochs = [record['epoch'] for record in records]
    if len(set(epochs)) < len(epochs):
        unit = 'iteration'
    return Recording(path, records, histograms, unit)


def _counted(histogram):
    """'epoch' or 'iter', what the number in the file's name counts."""
    return histogram.stem.rpartition('_')[0]


def _read_lines(file):
    lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        record = _parse(line)
        if record is None and number == len(lines):
            return  # killed while it wrote
        if record is None:
            raise InputError(f'line {number} of {file} is no record of '
                             'StatisticsHook')
        yield record


def _parse(line):
    """Return the record in a line, or None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = (isinstance(record, dict) and {'iter', 'epoch'} <= record.keys()
             and isinstance(record.get('layers'), dict))
    return record if whole else None


def _number(value):
    return math.nan if value is None else float(value)


def _ranges(steps):
    """'1 to 4, 8': runs of consecutive numbers in short."""
    parts, first = [], 0
    for i in range(1, len(steps) + 1):
        if i == len(steps) or steps[i] != steps[i - 1] + 1:
            a, b = steps[first], steps[i - 1]
            parts.append(str(a) if a == b else f'{a} to {b}')
            first = i
    return ', '.join(parts)
