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
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / 'build' / 'sanitized'
REPORT = BUILD / 'report'  # of a process, with its number behind
# Undefined behaviour ends the process: its message goes to stderr only.
FLAGS = ('-fsanitize=address,undefined -fno-sanitize-recover=undefined '
         '-fno-omit-frame-pointer '
         '-fno-sanitize=vptr '  # torch hides the types that it looks at
         '-fno-wrapv '  # Python's own flag would hide signed overflow
         '-D_GLIBCXX_ASSERTIONS')
PYTEST = ['-q', '--capture=sys', '--durations=5', '-p', 'no:cacheprovider',
          '--hypothesis-profile=few']
# What builds, disassembles or emulates stays out.
TESTS = ['tests/ops', '-m', 'slow or not slow', '-k',
         'not units_share and not extended_instructions and not qemu and not '
         'stray']
# How a sanitized process ends where another one gets std::bad_alloc.
NO_MEMORY = 'out-of-memory|out of memory|allocation-size-too-big'


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
    binary = BUILD / 'mmadder' / '_C.abi3.so'
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
        'max_allocation_size_mb=4096:detect_stack_use_after_return=1:'
        f'log_path={REPORT}')


def findings():
    """Beginnings of AddressSanitizer's reports, but for lack of memory."""
    found = []
    for path in sorted(BUILD.glob(f'{REPORT.name}.*')):
        lines = path.read_text(errors='replace').splitlines()
        heads = [i for i, line in enumerate(lines)
                 if 'ERROR: AddressSanitizer' in line]
        found += ['\n'.join(line[:160] for line in lines[i:i + 6])
                  for i in heads if not re.search(NO_MEMORY, lines[i])]
    return list(dict.fromkeys(re.sub(r'0x[0-9a-f]+', '0x...', text)
                              for text in found))


def main():
    start = time.time()
    build()
    print(f'sanitized build: {time.time() - start:.0f} s', flush=True)
    for path in BUILD.glob(f'{REPORT.name}.*'):
        path.unlink()
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', *PYTEST, *(sys.argv[1:] or TESTS)],
        cwd=ROOT, env=environment())
    reports = findings()
    print(*reports, f'sanitizer reports: {len(reports)}', sep='\n')
    print(f'sanitized tests: {time.time() - start:.0f} s with the build')
    sys.exit(result.returncode or bool(reports))


if __name__ == '__main__':
    main()
