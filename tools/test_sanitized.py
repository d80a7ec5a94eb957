"""Runs the operators' tests under AddressSanitizer and UBSan.

The extension is compiled once more into build/sanitized, beside links to the
package's Python files: the normal binary stays as it is. Needs GCC and a
Linux with its sanitizer libraries; Python itself is not instrumented, so
leaks are not looked for.

Example:
    python tools/test_sanitized.py                # tests/ops, slow ones too
    python tools/test_sanitized.py tests/ops -k nan
"""
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / 'build' / 'sanitized'
FLAGS = ('-fsanitize=address,undefined -fno-sanitize-recover=undefined '
         # torch hides the type information that this check needs
         '-fno-sanitize=vptr '
         '-fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS')
# Examples per property; what builds, disassembles or emulates stays out.
PYTEST = ['-q', '--durations=5', '-p', 'no:cacheprovider',
          '--hypothesis-profile=few']
TESTS = ['tests/ops', '-m', 'slow or not slow', '-k',
         'not units_share and not extended_instructions and not qemu and '
         'not sanitized']


def build():
    """Compile, and link the rest of the package beside the binary."""
    environment = dict(os.environ, MMADDER_CUDA='0', **{
        name: f'{os.environ.get(name, "")} {FLAGS}'.strip()
        for name in ('CFLAGS', 'CXXFLAGS', 'LDFLAGS')})
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_ext', '--build-lib', BUILD,
         '--build-temp', BUILD / 'objects'],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    for path in (ROOT / 'mmadder').iterdir():
        link = BUILD / 'mmadder' / path.name
        if not path.name.startswith(('_C.', '__pycache__')):
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    binary, = (BUILD / 'mmadder').glob('_C.*')
    if b'__asan_init' not in binary.read_bytes():
        sys.exit(f'{binary} has no sanitizer in it: is the compiler GCC?')


def libraries():
    """The sanitizer, and what throws the exceptions that it watches."""
    compiler = os.environ.get('CXX', 'c++')
    paths = [subprocess.run(
        [compiler, f'-print-file-name={name}'], check=True,
        capture_output=True, text=True).stdout.strip()
        for name in ('libasan.so', 'libstdc++.so')]
    for path in paths:
        if not os.path.isabs(path):
            sys.exit(f'{compiler} has no {path}: apt-get install g++')
    return ':'.join(paths)


def environment():
    return dict(
        os.environ,
        LD_PRELOAD=libraries(),
        PYTHONPATH=str(BUILD),
        PYTHONSAFEPATH='1',  # or the source folder's mmadder comes first
        ASAN_OPTIONS='detect_leaks=0:allocator_may_return_null=1:'
        'detect_stack_use_after_return=1',
        UBSAN_OPTIONS='print_stacktrace=1')


def main():
    start = time.time()
    build()
    print(f'sanitized build: {time.time() - start:.0f} s', flush=True)
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', *PYTEST, *(sys.argv[1:] or TESTS)],
        cwd=ROOT, env=environment())
    print(f'sanitized tests: {time.time() - start:.0f} s with the build')
    sys.exit(result.returncode)


if __name__ == '__main__':
    main()
