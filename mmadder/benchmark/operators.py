"""The adder convolution of one layer, and its peers, as timed calls."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from mmadder.layers.weight_norm import adaptive_weight_norm
from mmadder.ops import adder_conv2d, pack_weight, reference

from .shapes import Layer

OPS = torch.ops.mmadder
# The reference holds all differences of an image at once.
MOST_DIFFERENCES = 2 * 10**8


class Problem(NamedTuple):
    """One layer with data: the input is rectified, as behind a ReLU."""
    layer: Layer
    x: torch.Tensor
    w: torch.Tensor
    grad: torch.Tensor  # of the output

    @classmethod
    def random(cls, layer: Layer, device: str = 'cpu') -> 'Problem':
        generator = torch.Generator().manual_seed(0)
        shapes = ((layer.batch, layer.in_channels, *layer.size),
                  (layer.out_channels, layer.in_channels // layer.groups,
                   layer.kernel, layer.kernel),
                  (layer.batch, layer.out_channels, *layer.out_size))
        x, w, grad = (torch.randn(shape, generator=generator).to(device)
                      for shape in shapes)
        return cls(layer, x.relu(), w, grad)

    @property
    def geometry(self) -> tuple:
        """(stride, padding, dilation, groups) of the operators."""
        layer = self.layer
        return ((layer.stride, ) * 2, (layer.padding, ) * 2, (1, 1),
                layer.groups)

    def unfold(self, x: torch.Tensor) -> torch.Tensor:
        """Windows of x as (N, C_in * K * K, H_out * W_out)."""
        return torch.nn.functional.unfold(
            x, self.w.shape[2:], stride=self.layer.stride,
            padding=self.layer.padding)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Windows of x as (N * H_out * W_out, C_in * K * K)."""
        return self.unfold(x).transpose(1, 2).flatten(0, 1)


# ---------------------------------------------------------------- forward --


def conv2d(problem: Problem,
           layout: torch.memory_format = torch.contiguous_format) -> Callable:
    x, w = (t.contiguous(memory_format=layout) for t in problem[1:3])
    geometry = problem.geometry
    return lambda: torch.nn.functional.conv2d(x, w, None, *geometry)


def conv2d_channels_last(problem: Problem) -> Callable:
    return conv2d(problem, torch.channels_last)


def adder(mode: str, center: bool = False) -> Callable:
    def make(problem):
        _, x, w, _ = problem
        geometry = problem.geometry
        return lambda: adder_conv2d(
            x, w, None, *geometry, mode=mode, center=center)
    return make


def adder_int8(problem: Problem) -> Callable:
    """Codes of one shared scale, packed weights, as in a quantized model."""
    _, x, w, _ = problem
    geometry = problem.geometry
    scale = max(x.max().item(), 2 * w.abs().max().item()) / 255
    zero_point = round(w.abs().max().item() / scale)
    x, w = ((t / scale + zero_point).round().clamp(0, 255).byte()
            for t in (x, w))
    packed = pack_weight(w, geometry[-1])
    zero, one = torch.zeros(len(w)), torch.ones(len(w))
    return lambda: OPS.adder_conv2d_int8(
        x, w, packed, scale, zero_point, zero, one, zero, None, False,
        *geometry)


def cdist(problem: Problem) -> Callable:
    """unfold and torch.cdist(p=1)."""
    layer, x, w, _ = problem

    def run(x=x, w=w):
        distances = torch.cdist(problem.rows(x), w.flatten(1), p=1)
        return -distances.view(layer.batch, *layer.out_size, -1).permute(
            0, 3, 1, 2)
    return run


def faiss_l1(problem: Problem) -> Callable | None:
    """faiss's pairwise L1 distances alone, of windows unfolded before."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    columns, filters = (t.contiguous().numpy() for t in (
        problem.rows(problem.x), problem.w.flatten(1)))
    return lambda: faiss.pairwise_distances(
        columns, filters, metric=faiss.METRIC_L1)


def plain_pytorch(problem: Problem) -> Callable | None:
    """mmadder.ops.reference, image by image."""
    layer, x, w, _ = problem
    if layer.terms / layer.batch > MOST_DIFFERENCES:
        return None
    geometry = problem.geometry
    return lambda: [reference.adder_conv2d(image, w, *geometry)
                    for image in x.split(1)]


# -------------------------------------------------------------- gradients --


def _convolution_backward(problem, mask):
    _, x, w, grad = problem
    stride, padding, dilation, groups = problem.geometry
    return lambda: torch.ops.aten.convolution_backward(
        grad, x, w, None, stride, padding, dilation, False, (0, 0), groups,
        mask)


def conv2d_input_grad(problem: Problem) -> Callable:
    return _convolution_backward(problem, (True, False, False))


def conv2d_weight_grad(problem: Problem) -> Callable:
    return _convolution_backward(problem, (False, True, False))


def adder_input_grad(form: str) -> Callable:
    def make(problem):
        _, x, w, grad = problem
        geometry = problem.geometry
        return lambda: OPS.adder_conv2d_input_grad(
            grad, x, w, *geometry, form)
    return make


def adder_weight_grad(problem: Problem) -> Callable:
    _, x, w, grad = problem
    geometry = problem.geometry
    return lambda: OPS.adder_conv2d_weight_grad(grad, x, w, *geometry)


def _training_step(problem, forward):
    x, w = (t.clone().requires_grad_() for t in problem[1:3])

    def step():
        with torch.enable_grad():
            return torch.autograd.grad(forward(x, w), (x, w), problem.grad)
    return step


def conv2d_step(problem: Problem) -> Callable:
    return _training_step(problem, lambda x, w: torch.nn.functional.conv2d(
        x, w, None, *problem.geometry))


def adder_step(problem: Problem) -> Callable:
    return _training_step(problem, lambda x, w: adder_conv2d(
        x, w, None, *problem.geometry))


def cdist_step(problem: Problem) -> Callable:
    """The same sums, with other gradients: those of the distance."""
    return _training_step(problem, cdist(problem))


# ----------------------------------------------------------- weight norms --


def _weight_norm_step(normalize):
    def make(problem):
        w = problem.w.clone().requires_grad_()
        nu = torch.ones_like(w[:, 0, 0, 0], requires_grad=True)
        upsilon = torch.zeros_like(nu, requires_grad=True)
        leaves, grad = (w, nu, upsilon), problem.w

        def step():
            with torch.enable_grad():
                return torch.autograd.grad(normalize(*leaves), leaves, grad)
        return step
    return make


def awn_by_batch_norm(weight: torch.Tensor, nu: torch.Tensor,
                      upsilon: torch.Tensor) -> torch.Tensor:
    """AWN by torch's batch norm: filters are channels of one sample."""
    return torch.batch_norm(
        weight.flatten(1).unsqueeze(0), nu, upsilon, None, None, True, 0.,
        1e-5, torch.backends.cudnn.enabled).view_as(weight)


# ------------------------------------------------------------------- all --

BASELINE = 'conv2d'
# What is timed: {group: {candidate: function of a Problem}}. A function
# gives None where there is nothing to time.
GROUPS = dict(
    forward={
        'conv2d': conv2d, 'conv2d cl': conv2d_channels_last,
        'auto': adder('auto'), 'centered': adder('auto', center=True),
        'exact': adder('exact'), 'max': adder('max'), 'int8': adder_int8},
    peers={'cdist': cdist, 'faiss': faiss_l1, 'plain': plain_pytorch},
    input_grad={
        'conv2d dX': conv2d_input_grad, 'dX': adder_input_grad('hardtanh'),
        'dX sign': adder_input_grad('sign')},
    weight_grad={'conv2d dW': conv2d_weight_grad, 'dW': adder_weight_grad},
    step={'conv2d step': conv2d_step, 'step': adder_step,
          'cdist step': cdist_step},
    weight_norm={
        'AWN': _weight_norm_step(adaptive_weight_norm),
        'AWN by BN': _weight_norm_step(awn_by_batch_norm)})
MAKERS = {name: make for group in GROUPS.values()
          for name, make in group.items()}


def calls(layer: Layer, groups: Sequence[str]) -> dict[str, Callable]:
    """{candidate: callable} of the baseline and the groups, for one layer."""
    problem = Problem.random(layer)
    names = [BASELINE] + [name for group in groups for name in GROUPS[group]]
    made = {name: MAKERS[name](problem) for name in dict.fromkeys(names)}
    return {name: call for name, call in made.items() if call is not None}
