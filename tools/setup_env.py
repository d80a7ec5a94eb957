"""Sets up the environment of `make`: the pinned stack and our extension.

Standard library only, since nothing else is there yet. Each step leaves a
stamp with a hash of what it depends on and is skipped while that holds, so
the script may be interrupted and run again at any time.
"""
from __future__ import annotations  # an old Python must get to its sentence

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
TESTED_PYTHON = (3, 11)
DISK_GB = 10  # the environment takes 8, building 2

# Pattern in a failed step's output, and what to do about it.
ADVICE = {
    r'No space left on device|Errno 28':
        'the disk is full: free some {disk} GB below {venv} and the '
        'temporary folder, then run the same command again',
    r'name resolution|Network is unreachable|NewConnectionError|Max retries|'
    r'Connection refused|Read timed out|ConnectTimeout|'
    r'No matching distribution found':
        'the package index cannot be reached or lacks a package: check the '
        "network and pip's settings (`pip config list`), then run the same "
        'command again',
    r'Python\.h: No such file':
        "Python's headers are missing: apt-get install python3.11-dev",
    r'Killed signal terminated program|cannot allocate memory':
        'memory ran out while compiling: set MAX_JOBS=1 and run the same '
        'command again',
}
SYSTEM_LIBRARIES = {  # what cv2 links to, and the packages that carry it
    'libGL.so.1': 'libgl1',
    'libgthread-2.0.so.0': 'libglib2.0-0',
    'libglib-2.0.so.0': 'libglib2.0-0',
    'libSM.so.6': 'libsm6',
    'libXext.so.6': 'libxext6',
}


class SetupError(Exception):
    """A sentence that says what to do."""


# ------------------------------------------------------------- before it --


def check_machine(venv: Path, disk_gb: float = DISK_GB,
                  version: tuple[int, int] = sys.version_info[:2],
                  include: str = sysconfig.get_path('include')) -> None:
    """Raise SetupError for what would fail later, and less clearly."""
    if tuple(version) != TESTED_PYTHON:
        raise SetupError(
            f'Python {version[0]}.{version[1]} was used, the pinned packages '
            f'are for 3.11: install it and run `make PYTHON=/path/to/'
            f'python3.11 ...`')
    compiler = os.environ.get('CXX', 'g++')
    if shutil.which(compiler) is None:
        raise SetupError(f'no C++ compiler: {compiler} was not found; '
                         'apt-get install g++, or set CXX')
    if not (Path(include) / 'Python.h').is_file():
        raise SetupError("Python's headers are missing: apt-get install "
                         'python3.11-dev (expected Python.h in '
                         f'{include})')
    if importlib.util.find_spec('ensurepip') is None:  # Debian's python3
        raise SetupError('Python cannot make environments: apt-get install '
                         'python3.11-venv')
    existing = next(p for p in (venv, *venv.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not (venv / 'bin' / 'python').exists() and free < disk_gb:
        raise SetupError(
            f'the disk has {free:.1f} GB free at {existing}, set-up needs '
            f'{disk_gb}: free some, or put the environment elsewhere with '
            '`make VENV=/other/disk/venv ...`')


# ------------------------------------------------------------------ steps --


class Setup:
    """Steps into one environment, each with a stamp and a log."""

    def __init__(self, venv: Path):
        self.venv = venv
        self.python = venv / 'bin' / 'python'
        self.state = venv / '.mmadder'
        self.done = []  # hashes of the steps so far

    def step(self, name: str, minutes: float | str, inputs: Iterable[str],
             action: Callable) -> None:
        """Run `action` unless done with the same inputs, in this order."""
        self.done.append(hashlib.sha256(
            ''.join([*self.done, name, *inputs]).encode()).hexdigest())
        stamp = self.state / name
        if stamp.is_file() and stamp.read_text() == self.done[-1]:
            return
        print(f'[{name}] about {minutes} min', flush=True)
        start = time.time()
        stamp.unlink(missing_ok=True)
        action()
        self.state.mkdir(exist_ok=True)
        stamp.write_text(self.done[-1])
        print(f'[{name}] done in {(time.time() - start) / 60:.1f} min',
              flush=True)

    def make_environment(self) -> None:
        """Make the environment anew unless its pip works."""
        if self.python.exists() and self._works():
            return
        shutil.rmtree(self.venv, ignore_errors=True)
        self.run('environment', [sys.executable, '-m', 'venv', self.venv])

    def _works(self):
        return subprocess.run([self.python, '-m', 'pip', '--version'],
                              capture_output=True).returncode == 0

    def pip(self, step: str, *arguments: Any, **environment: str) -> None:
        """Run the environment's pip, see :meth:`run`."""
        self.run(step, [self.python, '-m', 'pip',
                        '--disable-pip-version-check', *arguments],
                 **environment)

    def run(self, step: str, command: list, **environment: str) -> None:
        """Run a command with a ticking line; its output goes to a log."""
        log = self.venv.parent / f'{self.venv.name}-{step}.log'
        with open(log, 'wb') as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=output,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
                env=dict(os.environ, **environment))
            try:
                _tick(step, process, log)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if process.returncode:
            raise SetupError(self._explain(step, log))
        log.unlink()

    def _explain(self, step, log):
        text = log.read_text(errors='replace')
        print(*text.splitlines()[-15:], sep='\n', file=sys.stderr)
        for pattern, advice in ADVICE.items():
            if re.search(pattern, text, re.I):
                return advice.format(disk=DISK_GB, venv=self.venv)
        return f'the step "{step}" failed; its whole output is in {log}'

    def ask(self, code: str) -> str:
        """What a line of Python prints in the environment."""
        return subprocess.run([self.python, '-c', code], text=True,
                              capture_output=True, check=True).stdout.strip()


def _tick(step, process, log):
    """Show that a step lives: each second, or in a log each minute."""
    terminal = sys.stdout.isatty()
    start = shown = time.time()
    while process.poll() is None:
        time.sleep(0.2)
        if time.time() - shown < (1 if terminal else 60):
            continue
        shown = time.time()
        seconds = int(shown - start)
        line = (f'[{step}] {seconds // 60}:{seconds % 60:02} '
                f'{_progress(log)}')[:shutil.get_terminal_size().columns - 1]
        print(f'\r\033[K{line}' if terminal else line,
              end='' if terminal else '\n', flush=True)
    if terminal:
        print('\r\033[K', end='')


def _progress(log):
    """Files compiled, where the log counts them, or its last line."""
    text = log.read_bytes()[-4000:].decode(errors='replace')
    counts = re.findall(r'\[(\d+)/(\d+)\] ', text)
    if counts:
        return 'compiled {} of {} files'.format(*counts[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ''


# ------------------------------------------------------------------- mmcv --


def wheel_folder(torch_version: str, gpu: bool,
                 cache: str | Path | None = None) -> Path:
    """Where wheels compiled against exactly this torch are kept.

    A wheel compiled against another torch imports with missing symbols, or
    crashes; one compiled without a GPU lacks mmcv's CUDA operators.
    """
    cache = cache or os.environ.get('MMADDER_CACHE', '~/.cache/mmadder')
    tag = (f'torch-{torch_version}-cp{sys.version_info[0]}'
           f'{sys.version_info[1]}-{sysconfig.get_platform()}'
           f'{"-gpu" if gpu else ""}')
    return Path(cache).expanduser() / 'wheels' / tag


def find_wheel(folder: Path, version: str) -> Path | None:
    """Return mmcv's wheel in a folder, if there is one."""
    wheels = sorted(folder.glob(f'onedl_mmcv-{version}-*.whl'))
    return wheels[0] if wheels else None


def install_mmcv(setup: Setup, requirement: str) -> None:
    """Install mmcv from the cache, or compile it into the cache first."""
    version = requirement.partition('==')[2]
    torch_version, gpu = json.loads(setup.ask(
        'import json, torch; print(json.dumps('
        '[torch.__version__, torch.cuda.is_available()]))'))
    folder = wheel_folder(torch_version, gpu)
    wheel = find_wheel(folder, version)
    if wheel is None:
        print(f'[mmcv] compiling against torch {torch_version}, once: about '
              '8 min on two cores', flush=True)
        partial = folder.with_name(f'{folder.name}.partial-{os.getpid()}')
        shutil.rmtree(partial, ignore_errors=True)
        try:
            # pip's own cache does not know torch: keep it out of this.
            setup.pip('mmcv', 'wheel', '-v', '--no-cache-dir', '--no-deps',
                      '--no-build-isolation', '--no-binary', 'onedl-mmcv',
                      '--wheel-dir', partial, requirement,
                      MMCV_WITH_OPS='1',
                      MAX_JOBS=os.environ.get('MAX_JOBS',
                                              str(os.cpu_count())))
            folder.mkdir(parents=True, exist_ok=True)
            built = find_wheel(partial, version)
            wheel = built.replace(folder / built.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    setup.pip('mmcv', 'install', '--force-reinstall', '--no-deps', wheel)


def check_imports(setup: Setup) -> None:
    """Raise SetupError with the apt line for a missing system library."""
    result = subprocess.run([setup.python, '-c', 'import cv2, mmcv.ops'],
                            capture_output=True, text=True)
    if result.returncode == 0:
        return
    message = result.stderr.strip().splitlines()[-1]
    for library, package in SYSTEM_LIBRARIES.items():
        if library in message:
            raise SetupError(f'the system library {library} is missing: '
                             f'apt-get install {package}')
    raise SetupError(f'OpenCV or mmcv does not import: {message}')


# -------------------------------------------------------------------- all --


def run_all(venv: Path) -> None:
    """Run the steps that are not done."""
    setup = Setup(venv)
    texts = {path.stem: path.read_text()
             for path in REQUIREMENTS.glob('*.txt')}
    setup.make_environment()

    def install(name, *options):
        return lambda: setup.pip(name, 'install', *options, '-r',
                                 REQUIREMENTS / f'{name}.txt')

    for name, minutes in (('torch', 2), ('build', 0.2)):
        setup.step(name, minutes, [texts[name]], install(name))
    mmcv = texts['mmcv'].split()[-1]
    # mmcv needs the packages of the next step at run time only.
    setup.step('mmcv', '0.2 to 10', [texts['mmcv']],
               lambda: install_mmcv(setup, mmcv))
    for name in ('openmmlab', 'quickstart', 'tests', 'robustness'):
        setup.step(name, 0.5, [texts[name]], install(name))
    # Its metadata pins an old requests, which it does not import.
    setup.step('torchattacks', 0.1, [texts['torchattacks']],
               install('torchattacks', '--no-deps'))
    check_imports(setup)
    sources = [ROOT / 'setup.py', *sorted((ROOT / 'mmadder/csrc').rglob('*'))]
    setup.step(
        'extension', '2 to 10',
        [path.read_text() for path in sources if path.is_file()] +
        [str(ROOT), os.environ.get('MMADDER_CUDA', '')],
        lambda: setup.pip('extension', 'install', '-v', '--no-deps',
                          '--no-build-isolation', '-e', ROOT))
    # Last: a step that changes lets all behind it run again.
    for name in ('export', 'lint'):
        setup.step(name, 0.1, [texts[name]], install(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv')
    parser.add_argument('--disk-gb', type=float, default=DISK_GB,
                        help='free disk space to ask for')
    args = parser.parse_args()
    venv = args.venv.absolute()
    if not (venv / '.mmadder' / 'extension').exists():
        print(f'Setting up {venv}: about 5 minutes, and 8 more the first time '
              'to compile mmcv.', flush=True)
    try:
        check_machine(venv, args.disk_gb)
        run_all(venv)
    except SetupError as error:
        sys.exit(f'set-up: {error}.')
    except KeyboardInterrupt:
        sys.exit('set-up: interrupted; the same command goes on from here.')


if __name__ == '__main__':
    main()
