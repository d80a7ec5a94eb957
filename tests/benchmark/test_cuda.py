"""What the GPU benchmark checks and times, on the CPU."""
import pytest
import torch

from mmadder.benchmark import cuda, operators
from mmadder.benchmark.operators import Problem
from mmadder.benchmark.shapes import Layer
from mmadder.errors import InputError

ON_CPU = [('cpu', dtype) for dtype in cuda.LIMITS]


def test_build_without_cuda_is_said(monkeypatch):
    monkeypatch.setattr(cuda, 'kernel_devices', lambda: {'cpu'})
    with pytest.raises(InputError, match='without CUDA.*MMADDER_CUDA=1 pip'):
        cuda.require_gpu()


def test_checked_layers_are_right_on_the_cpu(capsys):
    cuda.check(ON_CPU)
    cuda.run_checked('cpu')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(cuda.CHECKED) * len(ON_CPU)
    for line in lines[1:]:
        errors = [float(word) for word in line.split()[-3:]]
        # None is zero for want of a comparison, all are far below the limit.
        assert all(0 < error < 1e-2 for error in errors), line


def test_wrong_results_are_noticed(monkeypatch):
    def scaled(*args):
        y, *grads = original(*args)
        return [1.001 * y, *grads]

    original = cuda.run_adder
    monkeypatch.setattr(cuda, 'run_adder', scaled)
    with pytest.raises(RuntimeError,
                       match='tails of tiles on cpu float32: error 1.0e-03'):
        cuda.check([('cpu', torch.float32)])


def test_nan_is_no_small_error(monkeypatch):
    monkeypatch.setattr(cuda, 'run_adder', lambda *args: [
        torch.full((1, ), torch.nan)] * 3)
    with pytest.raises(RuntimeError, match='error nan'):
        cuda.check([('cpu', torch.float32)])


def test_timed_calls_go_both_ways():
    """conv2d, adder and cdist; the naive kernel needs a GPU."""
    problem = Problem.random(Layer(2, 5, (9, 8), 7, 3, 2))
    makers = {name: make for name, make in cuda.MAKERS.items()
              if name != 'naive'}
    calls = cuda.calls(problem, makers)
    assert [*calls['forward']] == [*calls['backward']] == [*makers]
    outputs = {name: call() for name, call in calls['forward'].items()}
    torch.testing.assert_close(
        outputs['adder'], outputs['cdist'], rtol=1e-4, atol=1e-4)
    assert not any(y.requires_grad for y in outputs.values())
    for name, step in (('adder', operators.adder_step),
                       ('conv2d', operators.conv2d_step),
                       ('cdist', operators.cdist_step)):
        expected = step(problem)()
        for _ in range(2):  # as often as one likes
            torch.testing.assert_close(calls['backward'][name](), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_naive_kernel_is_the_same_function():
    problem = Problem.random(Layer(2, 5, (9, 8), 7, 3, 2), 'cuda')
    calls = cuda.calls(problem)
    for direction in ('forward', 'backward'):
        torch.testing.assert_close(
            calls[direction]['naive'](), calls[direction]['adder'](),
            rtol=1e-4, atol=1e-4)
