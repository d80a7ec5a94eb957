"""Builds mmadder: the compiled operators, configs and tools.

MMADDER_CUDA=auto|0|1 decides on the CUDA part: 'auto' (default) builds it
where nvcc fits the installed torch, '1' makes it an error where not.
TORCH_CUDA_ARCH_LIST chooses the architectures.
"""
import os
import re
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    import torch
except ImportError:
    sys.exit('mmadder is compiled against the installed torch, and there is '
             'none: install torch first, then\n'
             '  pip install -e . --no-build-isolation')

ROOT = Path(__file__).parent
CSRC = 'mmadder/csrc'
# What `mim train mmadder ...` and users' configs look for in the package.
MIM_FILES = ('configs', 'tools', 'weights', 'model-index.yml')
DEFAULT_ARCHITECTURES = '8.0;9.0+PTX'


def find_cuda():
    """(toolkit folder, major version) as nvcc itself reports them.

    `which nvcc` may be a wrapper script, so its place says nothing.
    """
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    nvcc = f'{home}/bin/nvcc' if home else shutil.which('nvcc')
    if nvcc is None or not os.path.exists(nvcc):
        return None, None

    def ask(*arguments):
        result = subprocess.run(
            [nvcc, *arguments], capture_output=True, text=True)
        return result.stdout + result.stderr

    major = re.search(r'release (\d+)\.', ask('--version'))
    top = re.search(
        r'^#\$ TOP=(.+)$', ask('--dryrun', '-x', 'cu', os.devnull), re.M)
    folder = top[1].strip() if top else Path(nvcc).resolve().parents[1]
    return os.path.realpath(folder), major and major[1]


def why_no_cuda(folder, major):
    """Reason to leave the CUDA part out, or None."""
    if os.environ.get('MMADDER_CUDA', 'auto') == '0':
        return 'MMADDER_CUDA=0'
    if torch.version.cuda is None:
        return 'torch is a CPU build'
    if folder is None:
        return 'nvcc was not found; set CUDA_HOME'
    if not (Path(folder) / 'include' / 'cuda_runtime_api.h').is_file():
        return f'there are no CUDA headers in {folder}'
    if major != torch.version.cuda.split('.')[0]:
        return f'nvcc {major} does not fit torch for {torch.version.cuda}'
    return None


def make_extension():
    mode = os.environ.get('MMADDER_CUDA', 'auto')
    if mode not in ('auto', '0', '1'):
        sys.exit(f'MMADDER_CUDA must be auto, 0 or 1, got {mode!r}')
    folder, major = find_cuda()
    reason = why_no_cuda(folder, major)
    if reason and mode == '1':
        sys.exit(f'MMADDER_CUDA=1, but {reason}')
    if reason:
        print(f'mmadder: CPU operators only ({reason})')
    else:  # before cpp_extension is imported, which reads them
        os.environ['CUDA_HOME'] = folder
        os.environ.setdefault('TORCH_CUDA_ARCH_LIST', DEFAULT_ARCHITECTURES)
    from torch.utils.cpp_extension import CppExtension, CUDAExtension
    sources = glob(f'{CSRC}/*.cpp') + glob(f'{CSRC}/cpu/*.cpp')
    flags = ['-O3', '-std=c++17', '-fvisibility=hidden', '-fopenmp']
    settings = dict(
        name='mmadder._C',
        # One binary for every Python of this torch: _C.abi3.so. Torch's
        # BuildExtension defines Py_LIMITED_API and leaves its Python part out.
        py_limited_api=True,
        depends=(glob(f'{CSRC}/**/*.h', recursive=True) +
                 glob(f'{CSRC}/**/*.cuh', recursive=True)),
        extra_link_args=['-fopenmp'])
    if reason:
        return CppExtension(sources=sorted(sources),
                            extra_compile_args=dict(cxx=flags), **settings)
    sources += glob(f'{CSRC}/cuda/*.cpp') + glob(f'{CSRC}/cuda/*.cu')
    return CUDAExtension(
        sources=sorted(sources), extra_compile_args=dict(
            cxx=flags, nvcc=['-O3', '-std=c++17']), **settings)


def link_mim_files():
    """Show configs and tools inside the package, as MIM expects them.

    Links, so that an editable installation follows the sources; wheels get
    copies, which MIM needs: it looks into site-packages.
    """
    folder = ROOT / 'mmadder' / '.mim'
    folder.mkdir(exist_ok=True)
    for name in MIM_FILES:
        link = folder / name
        if not link.exists() and (ROOT / name).exists():
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(ROOT / name, folder))


class BuildWithMimFiles(build_py):
    """Copies configs and tools into a wheel."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        # A build folder keeps the binary that an older version put there.
        for path in (Path(self.build_lib) / 'mmadder').glob('_C.cpython-*'):
            path.unlink()
        target = Path(self.build_lib) / 'mmadder' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        ignore = shutil.ignore_patterns('__pycache__')
        for name in MIM_FILES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=ignore)
            else:
                shutil.copy(source, target / name)


if __name__ == '__main__':
    os.chdir(ROOT)
    link_mim_files()
    extension = make_extension()
    from torch.utils.cpp_extension import BuildExtension
    setup(
        ext_modules=[extension],
        options=dict(bdist_wheel=dict(py_limited_api='cp311')),
        cmdclass=dict(build_ext=BuildExtension, build_py=BuildWithMimFiles),
        zip_safe=False)
