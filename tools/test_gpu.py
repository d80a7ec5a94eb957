"""Proves the CUDA operators on the GPU of this machine, and times them.

Builds the operators for the card, runs every test that needs a GPU, compares
with the CPU and with float64, runs compute-sanitizer, and times layers and
whole networks beside convolutions. A step that fails does not stop the next.
What came out is written to docs/measurements/gpu/CARD.json.

Examples:
    make test-gpu
    python tools/test_gpu.py --no-sanitizer
    python tools/test_gpu.py --rehearse --out rehearsal.json  # no GPU needed
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TESTS = ['tests/cuda', 'tests/benchmark', '-m', 'cuda and not slow', '-q',
         '-p', 'no:cacheprovider', '-W', 'default']


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', metavar='FILE', help='where to write what '
                        'came out, JSON')
    parser.add_argument('--no-build', action='store_true',
                        help='take the operators as they have been built')
    parser.add_argument('--no-sanitizer', action='store_true',
                        help='leave compute-sanitizer out, which takes '
                        'minutes')
    parser.add_argument('--rehearse', action='store_true',
                        help='run all of it on the CPU at tiny sizes, without '
                        'a build: shows that nothing is mistyped')
    args = parser.parse_args()
    if args.rehearse and not args.out:
        parser.error('--rehearse needs --out: its figures mean nothing, and '
                     'do not belong to those of GPUs')
    return args


def require_gpu():
    """Return (name, compute capability) of the card, or end with advice."""
    if not torch.cuda.is_available():
        raise InputError(
            'no GPU was found. This needs a machine with an NVIDIA GPU, its '
            f'driver, and nvcc of CUDA {torch.version.cuda or "(torch here "}'
            f'{"" if torch.version.cuda else "is a build without CUDA)"}; '
            '--rehearse runs all of it without one')
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f'{major}.{minor}'


def run(name, command, **environment):
    """Run a step, its lines as they come; {'seconds', 'exit'}."""
    print(f'\n== {name}: {" ".join(map(str, command))}', flush=True)
    start = time.time()
    status = subprocess.run(
        [sys.executable, *command], cwd=ROOT,
        env=dict(os.environ, PYTHONUNBUFFERED='1', **environment)).returncode
    seconds = round(time.time() - start, 1)
    print(f'== {name}: {"done" if status == 0 else f"exit {status}"}, '
          f'{seconds} s', flush=True)
    return dict(seconds=seconds, exit=status)


def run_tests(folder):
    """Run what needs a GPU; with the numbers and names of what failed."""
    report = folder / 'tests.xml'
    step = run('tests', ['-m', 'pytest', *TESTS, f'--junitxml={report}'])
    if report.exists():
        suite = ElementTree.parse(report).getroot().find('testsuite')
        step.update({key: int(suite.get(key)) for key in (
            'tests', 'failures', 'errors', 'skipped')})
        step['failed'] = [
            f'{case.get("classname")}::{case.get("name")}'
            for case in suite.iter('testcase')
            if case.find('failure') is not None
            or case.find('error') is not None]
    return step


def run_benchmark(name, options, folder):
    """Run tools/benchmark.py; with its figures."""
    target = folder / f'{name}.json'
    step = run(name, ['tools/benchmark.py', '--device', 'cuda', *options,
                      '--json', target])
    if target.exists():
        content = json.loads(target.read_text())
        step.update(machine=content['machine'], figures=content['figures'])
    return step


def run_all(args, arch, folder):
    """Run the steps in turn: {name: what came out}."""
    steps = {}
    if not args.no_build and not args.rehearse:
        steps['build'] = run(
            'build', ['setup.py', 'build_ext', '--inplace'],
            MMADDER_CUDA='1', TORCH_CUDA_ARCH_LIST=arch)
    steps['tests'] = run_tests(folder)
    options = ['--rehearse', '--rounds', '1'] if args.rehearse else []
    layers = ['--layers', 'resnet18', 'fpn', '--batch', '32']
    if args.no_sanitizer:
        layers.append('--no-sanitizer')
    steps['networks'] = run_benchmark(
        'networks', ['--models', *options], folder)
    steps['operators'] = run_benchmark(
        'operators', [*layers, *options], folder)
    return steps


def main():
    args = parse_args()
    card, arch = ('rehearsal', None) if args.rehearse else require_gpu()
    out = Path(args.out or ROOT / 'docs' / 'measurements' / 'gpu' / (
        re.sub(r'\W+', '-', card).strip('-').lower() + '.json'))
    with tempfile.TemporaryDirectory() as folder:
        steps = run_all(args, arch, Path(folder))
    machine = next((step.pop('machine') for step in steps.values()
                    if 'machine' in step), {})
    for step in steps.values():
        step.pop('machine', None)
    write_json(out, dict(machine=machine, steps=steps))
    failed = [name for name, step in steps.items() if step['exit']]
    print(f'\n{out}')
    if failed:
        sys.exit(f'FAILED: {", ".join(failed)}')


if __name__ == '__main__':
    import torch

    from mmadder import cli
    from mmadder.errors import InputError
    from mmadder.files import write_json
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
