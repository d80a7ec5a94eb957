"""A device that is not the CPU, for machines without a GPU.

Its tensors call their device 'meta' and keep their values on the CPU. As on a
GPU, an operator takes tensors of one device, beside numbers, and only a copy
moves values.
"""
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FAR = torch.device('meta')
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FarTensor(torch.Tensor):
    """A tensor of the device, with the values of another one."""

    @staticmethod
    def __new__(cls, values, requires_grad=False):
        held = near(values)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype,
            device=FAR, requires_grad=requires_grad)
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with FarDevice():
            return func(*args, **(kwargs or {}))


class FarDevice(TorchDispatchMode):
    """While it is entered, ``device=FAR`` makes tensors of the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0]
                   if isinstance(leaf, torch.Tensor)]
        is_far = any(isinstance(tensor, FarTensor) for tensor in tensors)
        if is_far and func not in COPIES:
            for tensor in tensors:
                if not isinstance(tensor, FarTensor) and tensor.dim():
                    raise RuntimeError(
                        f'{func}: tensors on {FAR} and on {tensor.device}')
        if kwargs.get('device') is not None:
            is_far = torch.device(kwargs['device']) == FAR
            kwargs['device'] = 'cpu'
        output = func(*tree_map(near, args), **tree_map(near, kwargs))
        if func._schema.name.endswith('_'):  # in place
            return args[0]
        return tree_map(_far, output) if is_far else output


def near(value):
    """Return the tensor on the CPU behind one of the device."""
    return value.held if isinstance(value, FarTensor) else value


def _far(value):
    return FarTensor(value) if isinstance(value, torch.Tensor) else value


def move(model):
    """Move a model to the device, in place; return it."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(
                    FarTensor(value.detach()), value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = FarTensor(value)
    return model
