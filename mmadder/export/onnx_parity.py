"""An ONNX file beside the model of PyTorch that it was made from."""
import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mmadder.errors import InputError
from mmadder.timing import median_times

from .detector_networks import DetectorNetwork
from .onnx_file import OnnxModel, padded
from .onnx_graph import Network
from .onnx_testing import boxes_of, picture_sizes

TOLERANCE = 1e-4  # of an output's largest value
ROUNDING = 10  # times as much as PyTorch's float32 deviates from float64
# Of boxes: the share without a partner, and how far partners may be apart.
ALONE, CORNERS, SCORES = .01, .25, .005
NEAR = 2.  # pixels between the corners of partners
ROUNDS = 5  # of the timing


@dataclasses.dataclass
class Comparison:
    """One output on all pictures.

    Attributes:
        output: its name.
        values: numbers, or boxes, that were compared.
        largest: absolute value, of PyTorch.
        deviation: largest absolute difference.
        bound: that it must not exceed.
    """
    output: str
    values: int
    largest: float
    deviation: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.deviation <= self.bound  # not so with NaN


@dataclasses.dataclass
class Parity:
    """What an export is reported with.

    Attributes:
        pictures: that were compared.
        comparisons: one for each output.
        bytes: of the file.
        seconds: for one picture, by what computes it, equal threads.
        threads: how many.
    """
    pictures: int
    comparisons: list[Comparison]
    bytes: int
    seconds: dict[str, float]
    threads: int

    def require(self) -> None:
        """Raise InputError where a deviation exceeds its bound."""
        for found in self.comparisons:
            if not found.holds:
                raise InputError(
                    f'the ONNX file computes something else than PyTorch: '
                    f'{found.output} deviates by {found.deviation:.3g} from '
                    f'values up to {found.largest:.3g}, more than '
                    f'{found.bound:.3g}; it was not kept')


def compare(model: nn.Module, network: Network, path: str | Path,
            inputs: Tensor, data_samples: Sequence,
            tolerance: float = TOLERANCE) -> Parity:
    """Run both on pictures, one by one and as a batch, and time them.

    Args:
        model: of PyTorch, in evaluation mode.
        network: made of it.
        path: the file.
        inputs: (N, 3, H, W), normalized pictures.
        data_samples: theirs.
        tolerance: bound of a tensor's deviation, as a part of its largest
            value. Where PyTorch itself deviates by more than a tenth of it
            from what it computes in float64, ten times that is the bound.
            Boxes have bounds of their own.
    """
    onnx = OnnxModel(path)
    inputs = padded(inputs, onnx.size)
    calls = _boxes if isinstance(network, DetectorNetwork) else _tensors
    torch_call, onnx_call = calls(model, network, onnx)
    with torch.no_grad():
        samples = list(data_samples)
        singly = [_pair(torch_call, onnx_call, inputs[i:i + 1],
                        samples[i:i + 1]) for i in range(len(inputs))]
        pairs = [*singly, _pair(torch_call, onnx_call, inputs, samples)]
        one = inputs[:1], samples[:1]
        seconds = median_times({
            'PyTorch': functools.partial(torch_call, *one),
            'ONNX Runtime': functools.partial(onnx_call, *one)}, ROUNDS)
    if calls is _boxes:
        comparisons = _compare_boxes(pairs, tolerance)
    else:
        comparisons = _compare_tensors(
            pairs, tolerance, _rounding(network, inputs, pairs[-1][0]))
    return Parity(len(inputs), comparisons, Path(path).stat().st_size,
                  seconds, torch.get_num_threads())


def _pair(torch_call, onnx_call, *arguments):
    return torch_call(*arguments), onnx_call(*arguments)


def _tensors(model, network, onnx):
    """Calls that return {name: tensor}."""
    def torch_call(inputs, samples):
        found = network(inputs)  # which sets the names
        return dict(zip(network.output_names, found))

    return torch_call, lambda inputs, samples: onnx(inputs)


def _boxes(model, network, onnx):
    """Calls that return boxes of each picture, in pixels of the input."""
    def torch_call(inputs, samples):
        return [sample.pred_instances for sample in model.predict(
            inputs, samples, rescale=False)]

    def onnx_call(inputs, samples):
        found = onnx(inputs, picture_sizes(samples))
        return [boxes_of(found, i) for i in range(len(samples))]

    return torch_call, onnx_call


@torch.no_grad()
def _rounding(network, inputs, found):
    """{name: deviation of what PyTorch found from float64}."""
    exact = copy.deepcopy(network).double()(inputs.double())
    return {name: (tensor - value).abs().max().item()
            for (name, tensor), value in zip(found.items(), exact)}


def _compare_tensors(pairs, tolerance, rounding):
    comparisons = []
    for name in pairs[0][0]:
        expected, found = (torch.cat([tensors[name].flatten()
                                      for tensors in side])
                           for side in zip(*pairs))
        largest = expected.abs().max().item()
        comparisons.append(Comparison(
            name, expected.numel(), largest,
            (expected - found).abs().max().item(),
            max(tolerance * largest, ROUNDING * rounding[name])))
    return comparisons


def _compare_boxes(pairs, tolerance):
    """Boxes of both sides in pairs; few may lack one.

    Two boxes of nearly equal scores may change places, and at a threshold
    rounding decides whether a box is there.
    """
    total, matches, largest = 0, [], [0., 0.]
    for expected, found in pairs:
        for own, other in zip(expected, found):
            total += max(len(own), len(other))
            matches += _matches(own, other)
            largest = [max([value, *tensor.abs().flatten().tolist()])
                       for value, tensor in zip(
                           largest, (own.bboxes, own.scores))]
    corners, scores = (max((match[i] for match in matches), default=0.)
                       for i in (0, 1))
    return [
        Comparison('boxes without partner', total, total,
                   total - len(matches), ALONE * total),
        Comparison('their corners, pixels', 4 * len(matches), largest[0],
                   corners, CORNERS),
        Comparison('their scores', len(matches), largest[1], scores, SCORES)]


def _matches(own, other):
    """(difference of corners, of scores) of boxes that belong together."""
    free = torch.ones(len(other), dtype=torch.bool)
    found = []
    for box, score, label in zip(own.bboxes, own.scores, own.labels):
        corners = (other.bboxes - box).abs().amax(1)
        fitting = free & (other.labels == label) & (corners < NEAR)
        if fitting.any():
            best = corners.where(fitting, torch.inf).argmin()
            free[best] = False
            found.append((corners[best].item(),
                          (other.scores[best] - score).abs().item()))
    return found
