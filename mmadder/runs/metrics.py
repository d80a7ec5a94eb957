"""Which validation metric to show, its unit, and which way is better."""
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmadder.engine.annealing_hook import ADDER_FRACTION
from mmadder.errors import InputError

TEST_LOSS = 'test/cross_entropy'
# Preferred in this order, where a run logs several.
METRICS = ('pascal_voc/mAP', 'coco/bbox_mAP', 'accuracy/top1')
# Of MMPretrain, whose metrics are percent; those of MMDetection are shares.
PERCENT = ('accuracy/', 'single-label/', 'multi-label/', 'retrieval/')
NO_METRICS = {'step', 'time', 'data_time', 'memory', 'epoch', 'iter',
              ADDER_FRACTION}


def metrics_of(records: Iterable[Mapping]) -> list[str]:
    """Return the metrics that every validation record has, in order."""
    records = list(records)
    keys = dict.fromkeys(key for record in records for key in record)
    return [key for key in keys
            if all(is_metric(key, record.get(key)) for record in records)]


def is_of_adders(record: Mapping) -> bool:
    """Whether a validation was of the network that the training is for.

    While AnnealingHook leads convolutions to adders, it is not.
    """
    return record.get(ADDER_FRACTION, 1) >= 1


def is_metric(key: str, value: object) -> bool:
    """Whether a record's entry is a figure, not a step or a time."""
    return key not in NO_METRICS and isinstance(
        value, (int, float, np.number))


def choose_metric(found: Mapping[str, Sequence[str]],
                  metric: str | None = None,
                  preferred: Sequence[str] = METRICS) -> str:
    """Find the metric to show of several runs.

    Args:
        found: name of a run to its metrics.
        metric: take this one.
        preferred: the first of these that all runs have; else a mAP, else
            the first metric that they have in common.
    Raises:
        InputError: not every run has ``metric``, or there is none that all
            have; the message lists what each run has.
    """
    common = [key for key in next(iter(found.values()))
              if all(key in keys for keys in found.values())]
    if metric is not None and metric not in common:
        raise InputError(f'not every run has the metric {metric!r}:'
                         + _listing(found))
    if not common:
        raise InputError('the runs have no validation metric in common:'
                         + _listing(found))
    ranking = [*preferred, *(key for key in common if key.endswith('mAP'))]
    return metric or next((key for key in ranking if key in common),
                          common[0])


def is_loss(metric: str) -> bool:
    """Whether less is better."""
    return metric.endswith(('loss', 'cross_entropy'))


def is_share(metric: str) -> bool:
    """Whether a metric goes from 0 to 1, as MMDetection's do."""
    name = metric.rpartition('/')[2]
    return not metric.startswith(PERCENT) and (
        'mAP' in name or name.startswith('AP'))


def in_percent(metric: str, values: Iterable[float | None]) -> np.ndarray:
    """Return shares in percent, other values as they are; None is NaN."""
    values = np.asarray(list(values), dtype=float)
    return 100 * values if is_share(metric) else values


def label(metric: str) -> str:
    """What an axis or a table says of values of :func:`in_percent`."""
    percent = is_share(metric) or metric.startswith(PERCENT)
    return f'{metric} in percent' if percent else metric


def best(metric: str, values: Iterable[float]) -> int:
    """Return the index of the best finite value; 0 where none is finite."""
    values = np.asarray(list(values), dtype=float)
    ranked = -values if is_loss(metric) else values
    return int(np.where(np.isfinite(values), ranked, -np.inf).argmax())


def worsening(metric: str, values: Iterable[float]) -> np.ndarray:
    """Return how much worse each value is than the one before it."""
    values = np.asarray(list(values), dtype=float)
    return np.diff(values) * (1 if is_loss(metric) else -1)


def _listing(found):
    return ''.join(
        f'\n  {name}: {", ".join(keys) or "no validation"}'
        for name, keys in found.items())
