"""Accuracy on the straight line between two checkpoints, as in Figure 2(c).

"Towards Stable and Robust AdderNets" (NeurIPS 2021), section 5.2: the
smoother the way between two epochs of a training, the smoother the landscape
that the optimizer walks on.
"""
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import CheckpointLoader, Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.engine.checkpoint import compare_state_dict, read_state_dict
from mmadder.errors import InputError

from .tables import write_json

COUNTER = '.num_batches_tracked'
METRICS = ('accuracy/top1', 'pascal_voc/mAP', 'coco/bbox_mAP')
# Of a model's config, what the network computes does not depend on.
TRAINING_ONLY = ('init_cfg', 'train_cfg', 'test_cfg', 'data_preprocessor',
                 'eta', 'input_gradient')


def interpolate(first, second, t):
    """Return the state dict (1 - t) first + t second.

    Buffers, such as the tracked mean and variance of batch norms, are
    interpolated like weights. Integers, which only count, are the first's.

    Args:
        first, second (dict[str, Tensor]): equal keys and shapes.
        t (float): 0 gives the first, 1 the second.
    Returns:
        dict[str, Tensor]
    """
    return {key: torch.lerp(value, second[key].to(value.dtype), t)
            if value.is_floating_point() else value
            for key, value in first.items()}


def require_same_architecture(first, second, names):
    """Raise InputError unless two state dicts have equal keys and shapes.

    Args:
        first, second (dict[str, Tensor])
        names (tuple[str, str]): the files.
    """
    differences = []
    for kind, own, other in (('only in the first', first, second),
                             ('only in the second', second, first)):
        keys = [key for key in own
                if key not in other and not key.endswith(COUNTER)]
        if keys:
            differences.append(f'{len(keys)} keys {kind}: {_short(keys)}')
    shapes = [f'{key} ({tuple(value.shape)} and {tuple(second[key].shape)})'
              for key, value in first.items()
              if key in second and second[key].shape != value.shape]
    if shapes:
        differences.append(f'{len(shapes)} of different shapes: '
                           f'{_short(shapes)}')
    if differences:
        raise InputError(
            '{} and {} are of different architectures and have no line '
            'between them:\n  '.format(*names) + '\n  '.join(differences))


def require_same_settings(names):
    """Compare the model configs that MMEngine's checkpoints carry.

    Weight standardization has no parameters, so keys and shapes do not tell
    it from a plain adder. Files without a config pass.

    Args:
        names (tuple[str, str]): the files.
    Raises:
        InputError: they differ in what the network computes.
    """
    models = [_model_settings(name) for name in names]
    if None in models or models[0] == models[1]:
        return
    raise InputError(
        '{} and {} were trained with different models: {}'.format(
            *names, _first_difference(*models)))


def load_pair(model, names):
    """Read two checkpoints that fit each other and the model.

    Args:
        model (nn.Module)
        names (tuple[str, str]): the files.
    Returns:
        list[dict[str, Tensor]]: with the model's keys only.
    Raises:
        InputError: a file is missing or does not fit.
    """
    pair = [read_state_dict(name) for name in names]
    require_same_architecture(*pair, names)
    require_same_settings(names)
    own = model.state_dict()
    for name, state_dict in zip(names, pair):
        difference = compare_state_dict(model, state_dict)
        if difference:
            raise InputError(f'checkpoint {name} does not fit '
                             f'{type(model).__name__} of the config:\n  '
                             f'{difference}')
    return [{key: state_dict.get(key, own[key]) for key in own}
            for state_dict in pair]


class TestSet:
    """The config's test images and metrics, evaluated again and again.

    Args:
        cfg (Config): of MMPretrain or MMDetection.
        images (int, optional): a random choice of so many; default: all.
        seed (int): of the choice.
    Raises:
        InputError: there are fewer images, or a metric needs all of them.
    """
    __test__ = False  # no test case for pytest

    def __init__(self, cfg, images=None, seed=0):
        self.scope = cfg.get('default_scope', 'mmengine')
        loader = dict(cfg.test_dataloader)
        with DefaultScope.overwrite_default_scope(self.scope):
            if images is not None:
                _require_any_subset(cfg.test_evaluator)
                loader['dataset'] = subset(
                    DATASETS.build(loader['dataset']), images, seed)
            self.loader = Runner.build_dataloader(loader, seed=seed)
            self.evaluator = Evaluator(cfg.test_evaluator)
        self.evaluator.dataset_meta = getattr(
            self.loader.dataset, 'metainfo', None)

    def __len__(self):
        return len(self.loader.dataset)

    @torch.no_grad()
    def evaluate(self, model, progress=iter):
        """Test a model.

        Args:
            model (nn.Module): put into evaluation mode.
            progress (callable): wraps the iterable of batches.
        Returns:
            dict[str, float]: the metrics.
        """
        model.eval()
        with DefaultScope.overwrite_default_scope(self.scope):
            for batch in progress(self.loader):
                outputs = model.test_step(batch)
                self.evaluator.process(data_samples=outputs, data_batch=batch)
            return self.evaluator.evaluate(len(self))


def training_batches(cfg, count, seed=0):
    """Load the first batches of the training, augmented as there.

    Returns:
        list: ``count`` batches, or all if there are fewer.
    """
    loader = dict(cfg.train_dataloader, num_workers=0,
                  persistent_workers=False)
    torch.manual_seed(seed)
    np.random.seed(seed)
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope', 'mmengine')):
        loader = Runner.build_dataloader(loader, seed=seed)
        return [batch for _, batch in zip(range(count), loader)]


@torch.no_grad()
def reestimate_statistics(model, batches, progress=iter):
    """Measure the tracked mean and variance of all batch norms anew.

    Each becomes the mean over the batches, seen in a training-mode forward
    of the norms; weights, and other layers' modes, stay as they are.

    Args:
        model (nn.Module): of MMPretrain or MMDetection.
        batches (list): of :func:`training_batches`.
        progress (callable): wraps the iterable of batches.
    Raises:
        InputError: the model has no batch norm that tracks statistics.
    """
    norms = find_norms(model)
    if not norms:
        raise InputError(f'{type(model).__name__} has no batch norm whose '
                         'statistics could be estimated anew')
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    torch.manual_seed(0)  # detectors draw samples of their proposals
    try:
        for batch in progress(batches):
            data = model.data_preprocessor(batch, True)
            model(**data, mode='loss')
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.eval()


def find_norms(model):
    """Batch norms with tracked statistics."""
    return [module for module in model.modules()
            if isinstance(module, _BatchNorm)
            and module.running_mean is not None]


class Interpolation:
    """Metrics along the line, kept in a JSON file as they come.

    Args:
        model (nn.Module)
        pair (sequence of dict): of :func:`load_pair`.
        test_set (TestSet)
        points (int): between the endpoints, at equal distances.
        batches (list): training batches for the second curve; none without.
        path (str | Path, optional): results are read from and written to it.
        settings (dict): what identifies the run; must equal that of an
            existing file.
    Raises:
        InputError: the file is of another run.
    """

    def __init__(self, model, pair, test_set, points=9, batches=(), path=None,
                 settings=()):
        self.model, self.pair, self.test_set = model, pair, test_set
        self.batches, self.path = batches, path
        self.ts = [i / (points + 1) for i in range(points + 2)]
        settings = dict(settings, points=points, images=len(test_set),
                        batches=len(batches))
        self.results = dict(settings=settings, curves={})
        if path and Path(path).exists():
            self.results = read_result(path)
            _require_equal(self.results['settings'], settings, path)

    def curves(self):
        """Names of the curves to measure."""
        return ['interpolated'] + (
            ['reestimated'] if self.batches else [])

    def run(self, progress=None):
        """Measure what is missing.

        Args:
            progress (callable, optional): ``(iterable, text)`` to iterable.
        Returns:
            dict: ``settings``, ``curves`` and, by curve and metric,
            ``summary`` of :func:`summarize`.
        """
        progress = progress or (lambda iterable, text: iterable)
        for t in self.ts:
            for curve in self.curves():
                points = self.results['curves'].setdefault(curve, {})
                if f'{t:.4f}' not in points:
                    points[f'{t:.4f}'] = self._measure(
                        curve, t, lambda iterable: progress(
                            iterable, f't = {t:.2f} {curve}'))
                    self._save()
        self._save()
        return self.results

    def _measure(self, curve, t, progress):
        self.model.load_state_dict(interpolate(*self.pair, t))
        if curve == 'reestimated':
            reestimate_statistics(self.model, self.batches)
        metrics = self.test_set.evaluate(self.model, progress)
        return {key: float(value) for key, value in metrics.items()}

    def _save(self):
        self.results['summary'] = summarize(self.results)
        if self.path:
            write_json(self.path, self.results)


def summarize(results):
    """Variance between the endpoints, by curve and metric.

    Args:
        results (dict): with ``curves``.
    Returns:
        dict: curve to metric to ``variance`` (population variance of the
        points strictly between the endpoints, of values in percent),
        ``least``, ``mean`` of them, and ``endpoints``.
    """
    summary = {}
    for curve, points in results['curves'].items():
        summary[curve] = {}
        for metric in next(iter(points.values()), {}):
            line = curve_points(results, curve, metric)
            between = [y for t, y in line if 0 < t < 1]
            summary[curve][metric] = dict(
                variance=float(np.var(between)) if between else None,
                least=min(between, default=None),
                mean=float(np.mean(between)) if between else None,
                endpoints=[y for t, y in line if t in (0, 1)])
    return summary


def curve_points(results, curve, metric):
    """Return [(t, value)], in percent where the metric is a share."""
    scale = 100 if _is_share(metric) else 1
    return sorted(
        (float(t), scale * _number(metrics[metric]))
        for t, metrics in results['curves'].get(curve, {}).items())


def choose_metric(results, metric=None):
    """Return the metric to show: the one asked for, or the usual one.

    Raises:
        InputError: the results do not have it.
    """
    first = next(iter(results['curves']['interpolated'].values()))
    if metric is None:
        return next((name for name in METRICS if name in first),
                    next(iter(first)))
    if metric not in first:
        raise InputError(f'metric {metric!r} was not measured, only '
                         f'{", ".join(first)}')
    return metric


def read_result(path):
    """Read a file of :class:`Interpolation`.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        found = json.loads(Path(path).read_text())
        found['settings'].items(), found['curves'].items()
        return found
    except FileNotFoundError as error:
        raise InputError(f'{path} does not exist') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is no result of tools/analysis/'
                         'interpolate.py; name another file') from error


def subset(dataset, images, seed=0):
    """Choose random images of a dataset, in its order.

    Raises:
        InputError: it has fewer.
    """
    if not 1 <= images <= len(dataset):
        raise InputError(f'{images} images were asked for, the set has '
                         f'{len(dataset)}')
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(dataset))[:images]
    return dataset.get_subset(sorted(chosen.tolist()))


def _require_any_subset(evaluator):
    metrics = evaluator if isinstance(evaluator, (list, tuple)) \
        else [evaluator]
    for metric in metrics:
        if metric.get('ann_file'):
            raise InputError(
                f'{metric["type"]} compares with all annotations of its '
                'ann_file: leave --images out')


def _require_equal(known, settings, path):
    other = [f'{key} {known.get(key)!r} (now {value!r})'
             for key, value in settings.items() if known.get(key) != value]
    if other:
        raise InputError(f'{path} is of another run, with '
                         f'{", ".join(other)}; name another file, or delete '
                         'it')


def _model_settings(name):
    checkpoint = CheckpointLoader.load_checkpoint(name, map_location='cpu')
    text = (checkpoint.get('meta') or {}).get('cfg') \
        if isinstance(checkpoint, dict) else None
    if not isinstance(text, str):
        return None
    try:
        model = Config.fromstring(text, '.py').get('model')
    except (OSError, SyntaxError):
        return None
    return model and _without_training(model.to_dict())


def _without_training(value):
    if isinstance(value, dict):
        return {key: _without_training(item) for key, item in value.items()
                if key not in TRAINING_ONLY}
    if isinstance(value, (list, tuple)):
        return [_without_training(item) for item in value]
    return value


def _first_difference(first, second, path='model'):
    if isinstance(first, dict) and isinstance(second, dict):
        for key in {**first, **second}:
            if first.get(key) != second.get(key):
                return _first_difference(first.get(key), second.get(key),
                                         f'{path}.{key}')
    return f'{path} is {first!r} in the first, {second!r} in the second'


def _is_share(metric):
    """MMDetection's metrics are shares, MMPretrain's percent."""
    name = metric.rpartition('/')[2]
    return 'mAP' in name or name.startswith('AP')


def _number(value):
    return float('nan') if value is None else value


def _short(names, shown=5):
    more = len(names) - shown
    return ', '.join(names[:shown]) + (f' and {more} more' if more > 0 else '')
