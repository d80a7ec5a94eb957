"""Record weights, features and gradients of the layers while they train."""
import json
import math
import os
import os.path as osp

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import unwrap_model

BINS = 100
# Nodes between an adder's output and its gradient scaling: the operator, and
# the bias if there is one.
DEPTH = 3


@HOOKS.register_module()
class StatisticsHook(Hook):
    """Write the statistics of all adder layers and convolutions.

    What "Towards Stable and Robust AdderNets" (NeurIPS 2021) looks at: the
    variance of weights and features, before and after batch norm. Nothing is
    attached to the model but in the recorded iterations. The files lie beside
    MMEngine's ``scalars.json``, in ``WORK_DIR/TIMESTAMP/vis_data``:

    - ``statistics.jsonl``, a line for each recorded iteration: ``epoch``,
      ``iter`` and ``layers``, a dict of module name to statistics.
    - ``histograms/epoch_N.npz`` (or ``iter_N.npz``): ``NAME/QUANTITY`` with
      100 counts and ``NAME/QUANTITY/range``, its two ends.

    Statistics of a layer (absent where they mean nothing): ``kind`` ('adder'
    or 'conv'); mean and variance over all elements of the batch, ``X_mean``
    and ``X_var``, of X = ``weight`` (the parameter), ``filter`` (behind the
    weight norm), ``input``, ``feature`` (the output) and ``normalized`` (the
    output behind its batch norm); ``feature_channel_var``, mean over the
    channels of the variance within one; ``bn_mean`` and ``bn_var``, means
    over the channels (and over the norms, where there are several) of the
    tracked ones; ``nu`` and ``upsilon``, ``_mean``
    and ``_std``; ``grad_norm_raw`` and ``grad_norm_scaled``, before and
    behind the local gradient scaling, and ``grad_norm_weight`` of the
    parameter's. A layer that is called several times counts all its calls;
    its histograms are of the first. What it costs:
    ``tools/benchmark.py --models recording``.

    Args:
        interval: epochs between records. The last iteration of an
            epoch is recorded.
        by_epoch: False counts iterations.
        histogram_interval: records between two with histograms.
    Raises:
        InputError: an interval below 1, or epochs in a loop that has none.
    """

    def __init__(self,
                 interval: int = 1,
                 by_epoch: bool = True,
                 histogram_interval: int = 1):
        for name, value in dict(
                interval=interval,
                histogram_interval=histogram_interval).items():
            if value < 1:
                raise InputError(f'{name} of StatisticsHook must be at least '
                                 f'1, got {value}')
        self.interval = interval
        self.by_epoch = by_epoch
        self.histogram_interval = histogram_interval
        self._recorder = None

    def before_train(self, runner):
        if self.by_epoch and not isinstance(
                runner.train_loop, EpochBasedTrainLoop):
            raise InputError('this training counts iterations: set '
                             'by_epoch=False and an interval in iterations '
                             'for StatisticsHook')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not is_main_process() or not self._is_due(runner, batch_idx):
            return
        model = unwrap_model(runner.model)
        count = (runner.epoch if self.by_epoch else runner.iter) + 1
        due = count % (self.interval * self.histogram_interval) == 0
        self._recorder = Recorder(model, histograms=due)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        if self._recorder is None:
            return
        recorder, self._recorder = self._recorder, None
        layers, histograms = recorder.close()
        folder = osp.join(runner.log_dir, 'vis_data')
        os.makedirs(folder, exist_ok=True)
        record = dict(epoch=runner.epoch + 1, iter=runner.iter + 1,
                      layers=layers)
        with open(osp.join(folder, 'statistics.jsonl'), 'a') as file:
            file.write(json.dumps(record) + '\n')
        if histograms:
            name = (f'epoch_{runner.epoch + 1}' if self.by_epoch
                    else f'iter_{runner.iter + 1}')
            os.makedirs(osp.join(folder, 'histograms'), exist_ok=True)
            np.savez_compressed(
                osp.join(folder, 'histograms', f'{name}.npz'), **histograms)

    def _is_due(self, runner, batch_idx):
        if not self.by_epoch:
            return (runner.iter + 1) % self.interval == 0
        return ((runner.epoch + 1) % self.interval == 0
                and batch_idx + 1 == len(runner.train_dataloader))


class Recorder:
    """Watches one forward and backward pass of a model.

    Args:
        model: watched until :meth:`close`.
        histograms: take them too.
    """

    def __init__(self, model: nn.Module, histograms: bool = True):
        self._histograms = {} if histograms else None
        self._layers = {}  # name: dict of statistics
        self._moments = {}  # (name, quantity): Moments
        self._channels = {}  # name: Moments of each channel
        self._tracked = {}  # name: (mean, variance) of its norms
        self._owner = {}  # id of an output: (name, the output)
        self._handles = []
        for name, module in model.named_modules():
            if isinstance(module, (AdderConv2d, nn.Conv2d)):
                self._watch_layer(name, module)
            elif isinstance(module, _BatchNorm):
                self._handles.append(
                    module.register_forward_hook(self._after_norm))

    def close(self) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
        """Stop watching.

        Returns:
            Layer name to statistics, of the layers that ran; and the
            histograms by name.
        """
        for handle in self._handles:
            handle.remove()
        self._owner.clear()
        for (name, quantity), moments in self._moments.items():
            mean, var = moments.mean_and_variance()
            self._layers[name].update({f'{quantity}_mean': mean,
                                       f'{quantity}_var': var})
        for name, moments in self._channels.items():
            _, var = moments.mean_and_variance()
            self._layers[name]['feature_channel_var'] = var.mean()
        for name, tracked in self._tracked.items():
            self._layers[name].update(
                zip(('bn_mean', 'bn_var'), np.mean(tracked, 0)))
        layers = {name: {key: _json_number(value)
                         for key, value in layer.items()}
                  for name, layer in self._layers.items()}
        return layers, self._histograms or {}

    def _watch_layer(self, name, layer):
        def after_forward(module, inputs, output):
            self._after_layer(name, module, inputs[0].detach(), output)

        def after_backward(grad):
            if name in self._layers:
                self._layers[name]['grad_norm_weight'] = _norm(grad)

        self._handles.append(layer.register_forward_hook(after_forward))
        if layer.weight.requires_grad:
            self._handles.append(layer.weight.register_hook(after_backward))

    def _after_layer(self, name, layer, input, output):
        if not output.numel():
            return  # a head without proposals
        if name not in self._layers:
            self._layers[name] = dict(
                kind='adder' if isinstance(layer, AdderConv2d) else 'conv')
            self._note_weights(name, layer)
        self._owner[id(output)] = name, output
        self._note(name, 'input', input, histogram=False)
        self._note(name, 'feature', output.detach())
        self._channels.setdefault(name, Moments()).add(
            output.detach().transpose(0, 1).flatten(1), dim=1)
        self._watch_scaling(name, output.grad_fn)

    @torch.no_grad()
    def _note_weights(self, name, layer):
        self._note(name, 'weight', layer.weight)
        self._note(name, 'filter', getattr(
            layer, 'normalized_weight', layer.weight))
        awn = getattr(layer, 'awn', None)
        if awn is not None:
            for key in ('nu', 'upsilon'):
                value = getattr(awn, key)
                self._layers[name].update({
                    f'{key}_mean': value.mean().item(),
                    f'{key}_std': value.std(correction=0).item()})

    def _after_norm(self, norm, inputs, output):
        name, _ = self._owner.pop(id(inputs[0]), (None, None))
        if name is None:
            return
        self._note(name, 'normalized', output.detach())
        if norm.running_mean is not None:
            self._tracked.setdefault(name, []).append((
                norm.running_mean.mean().item(),
                norm.running_var.mean().item()))

    def _watch_scaling(self, name, node):
        """Find the gradient scaling above an adder's output; watch it."""
        nodes = [node]
        for _ in range(DEPTH):
            for node in nodes:
                if node is not None and (
                        node.name() == '_LocalGradientScalingBackward'):
                    self._handles.append(node.register_hook(
                        lambda after, before: self._layers[name].update(
                            grad_norm_raw=_norm(before[0]),
                            grad_norm_scaled=_norm(after[0]))))
                    return
            nodes = [above for node in nodes if node is not None
                     for above, _ in node.next_functions]

    def _note(self, name, quantity, tensor, histogram=True):
        key = name, quantity
        first = key not in self._moments
        moments = self._moments.setdefault(key, Moments())
        moments.add(tensor)
        if first and histogram and self._histograms is not None:
            self._note_histogram('/'.join(key), tensor)

    def _note_histogram(self, key, tensor):
        tensor = tensor.float()
        low, high = tensor.min().item(), tensor.max().item()
        if not math.isfinite(high - low):
            return
        counts = torch.histc(tensor, BINS, low, high)
        self._histograms[key] = counts.cpu().numpy().astype(np.int64)
        self._histograms[f'{key}/range'] = np.array([low, high])


class Moments:
    """Mean and variance over all elements, or a dimension, of tensors."""

    def __init__(self):
        self.parts = []  # (elements, mean, biased variance)

    def add(self, tensor: Tensor, dim: int | None = None) -> None:
        var, mean = torch.var_mean(tensor.float(), dim, correction=0)
        self.parts.append((
            tensor.numel() if dim is None else tensor.shape[dim],
            mean.double().cpu().numpy(), var.double().cpu().numpy()))

    def mean_and_variance(self) -> tuple[np.ndarray, np.ndarray]:
        total = sum(count for count, _, _ in self.parts)
        mean = sum(count * mean for count, mean, _ in self.parts) / total
        var = sum(count * (var + (part - mean)**2)
                  for count, part, var in self.parts) / total
        return mean, var


def _norm(tensor):
    return torch.linalg.vector_norm(tensor.float()).item()


def _json_number(value):
    """Numbers that are none become null: NaN is no JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
