"""Budgets of the compiled CUDA kernels, read from their instructions.

Needs the built extension and cuobjdump, no GPU. What a GPU makes of it is not
tested here.
"""
import collections
import os

import pytest

from mmadder.benchmark import sass
from mmadder.ops.extension import BINARY, kernel_devices

ARCHITECTURES = ('sm_80', 'sm_90')
REGISTERS_PER_SM = 65536
SHARED_PER_SM = {'sm_80': 164 << 10, 'sm_90': 228 << 10}
SHARED_PER_BLOCK = 1 << 10  # kept by the system

# Least share of useful instructions in the main loop: (op, rows of the tile,
# whether it converts 16-bit input on the way to shared memory).
USEFUL = {
    ('forward', 128, False): 0.92,
    ('forward', 64, False): 0.90,
    ('forward', 32, False): 0.84,
    ('forward', 128, True): 0.90,
    ('forward', 64, True): 0.87,
    ('forward', 32, True): 0.78,
    ('fused', 128, False): 0.92,
    ('fused', 64, False): 0.90,
    ('fused', 32, False): 0.84,
    ('input_grad', 128, False): 0.91,
    ('input_grad', 64, False): 0.89,
    ('input_grad', 128, True): 0.90,
    ('input_grad', 64, True): 0.86,
}
USEFUL_HALF_PAIRS = 0.88
# Instructions of the arithmetic itself, per term.
PER_TERM = {'': 2, 'hardtanh': 2, 'sign': 3}


def skip_or_fail(reason):
    """CI builds with CUDA; there a missing piece is an error."""
    if os.environ.get('MMADDER_CI') == '1':
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope='module')
def kernels():
    """Tiled kernels by architecture."""
    if 'cuda' not in kernel_devices():
        skip_or_fail('mmadder was built without CUDA')
    if sass.find_cuobjdump() is None:
        skip_or_fail('cuobjdump was not found')
    found = {arch: [k for k in sass.read_kernels(BINARY, arch) if k.tiled]
             for arch in ARCHITECTURES}
    for arch, tiled in found.items():
        if not tiled:
            skip_or_fail(f'this build has no code for {arch}')
    return found


def each(kernels):
    return [(arch, k) for arch in ARCHITECTURES for k in kernels[arch]]


def test_all_kernels_are_there(kernels):
    """Tiles x fetching x dtypes, and float16's pairs; two forms of dX."""
    for arch in ARCHITECTURES:
        ops = collections.Counter(k.tiled.op for k in kernels[arch])
        assert ops == dict(forward=3 * 2 * 3 + 1, fused=3 * 2,
                           input_grad=2 * 2 * 3 * 2)


def test_main_loops_are_mostly_arithmetic(kernels):
    low = []
    for arch, k in each(kernels):
        if not k.tiled.whole_taps:  # reported by tools/analysis/report_sass
            continue
        converts = k.tiled.dtype != 'float32'
        bar = USEFUL_HALF_PAIRS if k.tiled.half_pairs else USEFUL[
            k.tiled.op, k.tiled.rows, converts]
        if k.loop.useful_share < bar:
            low.append((arch, k.tiled, k.loop.useful_share, bar))
    assert not low


def test_main_loops_are_whole(kernels):
    """The loop that was found holds all arithmetic of a step, and no more."""
    for arch, k in each(kernels):
        per_term = k.loop.useful / k.tiled.terms
        if k.tiled.half_pairs:  # two by two, and the sums of each step
            assert 1 < per_term < 1.15, (arch, k.tiled)
        else:
            ideal = PER_TERM[k.tiled.form]
            assert ideal <= per_term < ideal + 0.05, (arch, k.tiled)


def test_registers_are_not_spilled(kernels):
    assert [(a, k.tiled) for a, k in each(kernels) if k.local] == []


def test_planned_blocks_fit_an_sm(kernels):
    for arch, k in each(kernels):
        warps = k.tiled.threads // 32 * k.tiled.blocks_per_sm
        per_warp = -(-k.registers * 32 // 256) * 256
        assert per_warp * warps <= REGISTERS_PER_SM, (arch, k.tiled)
        shared = (k.shared_bytes + SHARED_PER_BLOCK) * k.tiled.blocks_per_sm
        assert shared <= SHARED_PER_SM[arch], (arch, k.tiled)


def test_shared_memory_is_read_by_128_bits(kernels):
    """All but the gradient's sum of g, one read for each fetched pixel."""
    for arch, k in each(kernels):
        fetched = k.tiled.depth * k.tiled.pixels // k.tiled.threads
        narrow = k.loop.count('LDS') - k.loop.count('LDS', '128')
        assert narrow == (fetched if k.tiled.op == 'input_grad' else 0), (
            arch, k.tiled)


def test_weights_are_fetched_by_128_bits(kernels):
    for arch, k in each(kernels):
        chunk = 8 if k.tiled.half_pairs else 4
        chunks = k.tiled.depth * k.tiled.rows // chunk
        fetches = -(-chunks // k.tiled.threads)
        wide = k.loop.count('LDG', '128') + k.loop.count('LDGSTS', '128')
        assert wide == fetches, (arch, k.tiled)


def test_float32_is_fetched_before_the_arithmetic(kernels):
    for arch, k in each(kernels):
        if k.tiled.dtype == 'float32' and k.tiled.whole_taps:
            last = max(k.loop.places('LDG', 'LDGSTS'))
            assert last < (0.12 if k.tiled.rows == 32 else 0.1), (
                arch, k.tiled)


def test_counting_finds_the_hot_loop():
    body = [(0x00, 'FADD R1, R2, R3'), (0x10, 'FADD R1, -|R2|, R3'),
            (0x20, '@P0 LDS.128 R4, [R5]'), (0x30, 'LDS R4, [R5+0x10]'),
            (0x40, '@P0 BRA 0x10'), (0x50, '@!PT LDS RZ, [RZ]'),
            (0x60, '@P1 BRA `(.L_x_1)'), (0x70, 'BRA 0x70')]
    loop = sass.main_loop(body)
    assert (len(loop), loop.useful) == (4, 1)
    assert (loop.count('LDS'), loop.count('LDS', '128')) == (2, 1)
    assert loop.places('LDS') == [0.25, 0.5]
