"""Sizes that overflow: a clear error or a right answer, never a crash.

Each case runs in a process of its own with little memory and time to spare.
"""
import json
import os
import subprocess
import sys

import pytest

HUGE = 2**31 - 1
# name: arguments of `attempt` below
CASES = {
    'stride beyond int32': dict(stride=2**40),
    'stride of INT32_MAX': dict(stride=HUGE),
    'stride beyond int64': dict(stride=2**70),
    'padding beyond int32': dict(padding=2**62),
    'padding of INT32_MAX': dict(padding=HUGE),
    'padding of half INT32_MAX': dict(padding=2**30),
    'padding and stride of INT32_MAX': dict(padding=HUGE, stride=HUGE),
    'dilation of INT32_MAX': dict(dilation=HUGE),
    'dilation that its padding reaches': dict(dilation=HUGE, padding=2**30),
    'all at once': dict(dilation=HUGE, padding=HUGE, stride=HUGE),
    'a few windows far apart': dict(padding=2**16, stride=2**16),
    'many windows far apart': dict(padding=2**16, stride=2**10),
    'input of 2**62 elements': dict(input=(1, 1, HUGE, HUGE)),
    'batch of INT32_MAX': dict(input=(HUGE, 1, 3, 3)),
    'weight of 2**60 elements': dict(weight=(2**20, 2**20, 2**10, 2**10),
                                     input=(1, 2**20, 2**10, 2**10)),
    'output of 2**62 elements': dict(input=(2**31 - 1, 1, 1, 1),
                                     weight=(2**31 - 1, 1, 1, 1)),
    'kernel larger than the padded image': dict(weight=(1, 1, 6, 2),
                                                padding=1),
    'kernel as large as the padded image': dict(weight=(1, 1, 5, 5),
                                                padding=1),
    'negative padding': dict(padding=-1),
    'negative stride': dict(stride=-HUGE - 1),
    'negative dilation': dict(dilation=-1),
    'negative groups': dict(groups=-1),
    'groups beyond int32': dict(groups=2**40),
}
MUST_WORK = ['stride of INT32_MAX', 'kernel as large as the padded image']
OPERATORS = ['forward', 'input_grad', 'weight_grad']
SPARE_BYTES = 2**30
SECONDS = 10
SANITIZED = 'libasan' in os.environ.get('LD_PRELOAD', '')

SCRIPT = f'''
import itertools, json, os, resource, signal, sys
sys.path = {sys.path!r}
import torch
from mmadder.ops import adder_conv2d

W = 0.25  # every weight; every input and output gradient is 1

def expected(op, input, weight, output, stride, padding, dilation):
    """By counting: each input and kernel is one channel here."""
    values = torch.zeros(dict(
        forward=output, input_grad=input, weight_grad=weight)[op])
    for oh, ow, kh, kw in itertools.product(
            *map(range, (*output[2:], *weight[2:]))):
        h, w = (o * stride - padding + k * dilation
                for o, k in ((oh, kh), (ow, kw)))
        inside = 0 <= h < input[2] and 0 <= w < input[3]
        if op == 'forward':
            values[0, 0, oh, ow] -= abs(inside - W)
        elif op == 'weight_grad':
            values[0, 0, kh, kw] += inside - W
        elif inside:
            values[0, 0, h, w] += W - 1
    return values

def attempt(op, input=(1, 1, 3, 3), weight=(1, 1, 2, 2), stride=1, padding=0,
            dilation=1, groups=1):
    x, w = torch.ones(1).expand(input), torch.full((1, ), W).expand(weight)
    if op == 'forward':
        y = adder_conv2d(x, w, None, stride, padding, dilation, groups)
        output = y.shape
    else:
        output = [input[0], weight[0]] + [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel in zip(input[2:], weight[2:])]
        extra = ['hardtanh'] if op == 'input_grad' else []
        y = getattr(torch.ops.mmadder, 'adder_conv2d_' + op)(
            torch.ones(1).expand(output), x, w,
            *[(value, value) for value in (stride, padding, dilation)],
            groups, *extra)
    torch.testing.assert_close(
        y, expected(op, input, weight, output, stride, padding, dilation))

def limit_resources():
    signal.alarm({SECONDS})
    if {SANITIZED}:
        return  # the shadow memory is larger than any limit
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + {SPARE_BYTES}
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

torch.set_num_threads(1)  # a forked process has no others
for op, name, arguments in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        limit_resources()
        try:
            attempt(op, **arguments)
            result = ['right answer', '']
        except Exception as error:
            result = [type(error).__name__, str(error)[:1000]]
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    signal_number = os.waitpid(child, 0)[1] & 0x7f
    result = json.loads(result) if result else ['died', str(signal_number)]
    print(json.dumps([op, name, *result]), flush=True)
'''


@pytest.fixture(scope='module')
def outcomes():
    """{(operator, case): (kind, text)}"""
    cases = [(operator, name, arguments) for operator in OPERATORS
             for name, arguments in CASES.items()]
    result = subprocess.run(
        [sys.executable, '-c', SCRIPT, json.dumps(cases)],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()
            if line.startswith('["')]
    return {(operator, name): tuple(rest) for operator, name, *rest in rows}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('operator', OPERATORS)
def test_error_or_right_answer(outcomes, operator, case):
    kind, text = outcomes[operator, case]
    if SANITIZED and (kind, text) == ('died', '0'):
        pytest.skip('the sanitizer ends a process without memory itself; '
                    'tools/test_sanitized.py counts its other reports')
    allowed = ['right answer']
    if case not in MUST_WORK:
        allowed += ['ValueError', 'RuntimeError', 'MemoryError', 'TypeError']
    assert kind in allowed, (kind, text)
