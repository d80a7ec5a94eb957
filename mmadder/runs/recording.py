"""Read what ``StatisticsHook`` wrote during a training."""
import difflib
import json
import math
import zipfile
from pathlib import Path

import numpy as np

from mmadder.errors import InputError

FILE = 'statistics.jsonl'
QUANTITIES = ('weight', 'filter', 'feature', 'normalized')


class Recording:
    """Statistics of the layers of one run, iteration by iteration.

    Args:
        path (Path): the work directory, for errors.
        records (list[dict]): of the hook, by rising iteration.
        histograms (dict[int, Path]): files by epoch or iteration.
        unit (str): 'epoch' or 'iteration', what histograms and curves count.
    Attributes:
        layers (list[str]): names in the order in which the model runs.
        steps (list[int]): epoch or iteration of each record.
    """

    def __init__(self, path, records, histograms, unit):
        self.path, self.records, self.unit = path, records, unit
        self.histograms = histograms
        self.steps = [record['epoch' if unit == 'epoch' else 'iter']
                      for record in records]
        self.layers = list(dict.fromkeys(
            name for record in records for name in record['layers']))

    def kind(self, layer):
        """Return 'adder' or 'conv'."""
        return self._entries(layer)[-1]['kind']

    def adders(self):
        """Names of the adder layers."""
        return [name for name in self.layers if self.kind(name) == 'adder']

    def series(self, layer, key):
        """One statistic over the training.

        Args:
            layer (str): module name, as 'backbone.layer1.0.conv1'.
            key (str): statistic, as 'weight_var'.
        Returns:
            ndarray: (len(steps),) float64; NaN where it was not finite or
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
                             f'{_nearest(key, known)}; it has '
                             f'{", ".join(known)}')
        return np.array([_number(entry.get(key)) for entry in entries])

    def has(self, layer, key):
        """Whether a statistic of a layer was ever recorded."""
        return any(key in entry for entry in self._entries(layer))

    def histogram(self, layer, quantity, step=None):
        """Counts of a layer's values in 100 bins.

        Args:
            layer (str)
            quantity (str): 'weight', 'filter', 'feature' or 'normalized'.
            step (int, optional): epoch or iteration, default: the last.
        Returns:
            (ndarray, ndarray): counts (B,) and edges (B + 1,).
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

    def has_histogram(self, layer, quantity, step):
        """Whether :meth:`histogram` has something to give."""
        try:
            self.histogram(layer, quantity, step)
        except InputError:
            return False
        return True

    def require_layer(self, layer):
        """Raise InputError, with the nearest name, unless recorded."""
        if layer not in self.layers:
            raise InputError(
                f'no layer {layer!r} in {self.path}'
                f'{_nearest(layer, self.layers)}; --list shows all '
                f'{len(self.layers)}')

    def default_layer(self):
        """The deepest adder of the backbone, or layer without adders."""
        names = self.adders() or self.layers
        inside = [name for name in names if name.startswith('backbone.')
                  and 'downsample' not in name]
        return (inside or names)[-1]

    def _entries(self, layer):
        return [record['layers'][layer] for record in self.records
                if layer in record['layers']]


def read_recording(path):
    """Read the recording of a run.

    Args:
        path (str | Path): work directory. Of the iterations that several of
            its time-stamped folders have, as a resumed run leaves them, the
            latest folder's count.
    Returns:
        Recording
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
    records, histograms, unit = {}, {}, 'epoch'
    for file in files:
        records.update((record['iter'], record)
                       for record in _read_lines(file))
        for npz in file.parent.glob('histograms/*_*.npz'):
            kind, _, step = npz.stem.rpartition('_')
            histograms[int(step)] = npz
            unit = 'iteration' if kind == 'iter' else unit
    if not records:
        raise InputError(f'{files[-1]} is empty: the first record is written '
                         'at the end of an epoch')
    records = [records[key] for key in sorted(records)]
    epochs = [record['epoch'] for record in records]
    if len(set(epochs)) < len(epochs):
        unit = 'iteration'
    return Recording(path, records, histograms, unit)


def parse_runs(texts):
    """Read ``[NAME=]WORK_DIR`` arguments.

    Args:
        texts (list[str]): a directory that is no run, but has runs in it,
            stands for all of them.
    Returns:
        dict[str, Path]: by name, default: that of the directory.
    Raises:
        InputError: a directory does not exist or has no run, or two runs
            have one name.
    """
    runs = {}
    for text in texts:
        name, _, folder = text.rpartition('=')
        for path in _find_runs(Path(folder)):
            own = name or path.resolve().name
            if own in runs:
                raise InputError(f'two runs are named {own!r}; write '
                                 f'OTHER_NAME={path}')
            runs[own] = path
    return runs


def _find_runs(folder):
    if not folder.is_dir():
        raise InputError(f'work directory {folder} does not exist')
    if any(folder.glob('*/vis_data')):
        return [folder]
    runs = sorted({path.parents[1] for path in folder.glob('*/*/vis_data')})
    if not runs:
        raise InputError(f'{folder} is no work directory of a run, and has '
                         'none in it: there is no TIMESTAMP/vis_data')
    return runs


def _read_lines(file):
    lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record['iter'], record['epoch'], record['layers'].items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                return  # killed while it wrote
            raise InputError(f'line {number} of {file} is no record of '
                             'StatisticsHook') from error
        yield record


def _number(value):
    return math.nan if value is None else float(value)


def _nearest(name, known):
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f', did you mean {" or ".join(close)}?' if close else ''


def _ranges(steps):
    """'1 to 4, 8': runs of consecutive numbers in short."""
    parts, first = [], 0
    for i in range(1, len(steps) + 1):
        if i == len(steps) or steps[i] != steps[i - 1] + 1:
            a, b = steps[first], steps[i - 1]
            parts.append(str(a) if a == b else f'{a} to {b}')
            first = i
    return ', '.join(parts)
