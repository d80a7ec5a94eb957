"""Names, loops and tables of cuobjdump, without a GPU.

What the built kernels hold is tested in tests/cuda/test_sass_budget.py.
"""
import sys

import pytest

from mmadder.benchmark import sass
from mmadder.errors import InputError

# Beginnings of names as nvcc mangles them.
NAMES = {
    '_ZN7mmadder4cuda27adder_conv2d_forward_kernelI6__halfS2_NS0_4TileI'
    'Li128ELi64ELi16ELi8ELi3EEELb1ENS0_10NoEpilogueEEEvPKT_': sass.TiledKernel(
        'forward', '', 'float16', True, 128, 64, 16, 8, 3, True),
    '_ZN7mmadder4cuda27adder_conv2d_forward_kernelIffNS0_4TileI'
    'Li32ELi128ELi8ELi4ELi4EEELb0ENS0_10NoEpilogueEEEvPKT_': sass.TiledKernel(
        'forward', '', 'float32', False, 32, 128, 8, 4, 4, False),
    '_ZN7mmadder4cuda27adder_conv2d_forward_kernelIffNS0_4TileI'
    'Li64ELi128ELi16ELi8ELi3EEELb1ENS0_8EpilogueEEEvPKT_': sass.TiledKernel(
        'fused', '', 'float32', False, 64, 128, 16, 8, 3, True),
    '_ZN7mmadder4cuda30adder_conv2d_input_grad_kernelI13__nv_bfloat16NS0_'
    '4TileILi64ELi128ELi8ELi8ELi2EEELb0ELNS0_13InputGradientE1EEEvPKT_':
        sass.TiledKernel('input_grad', 'sign', 'bfloat16', False, 64, 128, 8,
                         8, 2, False),
}
LISTING = '''
                Function : plain_kernel
        /*0000*/                   FADD R1, R2, R3 ;    /* 0x1 */
        /*0010*/                   STL [R1], R2 ;       /* 0x2 */
        /*0020*/              @!P0 BRA 0x0 ;            /* 0x3 */
        /*0030*/                   EXIT ;               /* 0x4 */
'''
USAGE = '''
 Function plain_kernel:
  REG:40 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:400 TEXTURE:0
'''


def use_cuobjdump(folder, monkeypatch, code):
    """Put a cuobjdump into PATH that is this Python program."""
    tool = folder / 'cuobjdump'
    tool.write_text(f'#!{sys.executable}\nimport sys\n{code}\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', str(folder), prepend=':')


@pytest.mark.parametrize('name', NAMES)
def test_names_tell_the_tile(name):
    assert sass.TiledKernel.from_name(name) == NAMES[name]


def test_threads_share_the_terms():
    kernel = sass.TiledKernel(
        'forward', '', 'float32', False, 128, 64, 16, 8, 3, True)
    assert kernel.threads * kernel.terms == 128 * 64 * 16


def test_other_kernels_have_no_tile():
    assert sass.TiledKernel.from_name('_Z10add_kernelPf') is None


def test_predicates_are_no_opcodes():
    assert sass.opcode('@!P0 LDS.128 R4, [R5]') == 'LDS.128'
    assert sass.opcode('FADD R1, R2, R3') == 'FADD'


def test_kernels_are_read_from_the_listing(tmp_path, monkeypatch):
    use_cuobjdump(
        tmp_path, monkeypatch, f'print({USAGE!r} if "-res-usage" in sys.argv '
        f'else {LISTING!r})')
    kernel, = sass.read_kernels('library.so', 'sm_80')
    assert kernel[:2] == ('plain_kernel', None)
    assert kernel[3:] == (1, 40, 1024)
    assert kernel.loop.opcodes == ['FADD', 'STL', 'BRA']
    assert kernel.loop.useful_share == 1 / 3


def test_file_without_kernels_is_said(tmp_path, monkeypatch):
    use_cuobjdump(tmp_path, monkeypatch, 'sys.exit("no device code")')
    with pytest.raises(InputError, match='library.so has no readable CUDA '
                       'kernels for sm_80.*MMADDER_CUDA=1.*no device code'):
        sass.read_kernels('library.so', 'sm_80')


def test_missing_cuobjdump_is_said(monkeypatch):
    monkeypatch.setattr(sass, 'find_cuobjdump', lambda: None)
    with pytest.raises(InputError, match='pip install triton'):
        sass.read_kernels('library.so', 'sm_80')
