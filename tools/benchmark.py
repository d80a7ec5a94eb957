"""Times adder convolutions and adder networks beside their peers.

Operators (the default) on the layers of a network, or whole models; with
--device cuda on a GPU, where operators are checked first. All candidates run
in turn, round by round, in one process that keeps its freed memory; the tables
give medians and ratios, which drift less than times do. faiss, and for whole
models ONNX Runtime, OpenVINO and NNCF, are peers where they are installed
(requirements/peers.txt).

Examples:
    python tools/benchmark.py                     # what the targets speak of
    python tools/benchmark.py --layers resnet18 fpn --what forward --batch 1
    python tools/benchmark.py --threads 1 2 --memory --json operators.json
    python tools/benchmark.py --models            # all, a few minutes
    python tools/benchmark.py --models resnet18 --no-compile
    python tools/benchmark.py --device cuda --batch 32
    python tools/benchmark.py --device cuda --models
"""
import argparse
import os
import platform
import sys

# Memory that malloc returns to the system is faulted in again at every call,
# which costs whoever allocates most, not whoever computes most.
MALLOC = dict(MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_='4000000000',
              MALLOC_TOP_PAD_='67108864')
# Options that would be ignored.
WITHOUT_EFFECT = {
    'without --models': ('no_compile', ),
    'with --models': ('layers', 'what', 'batch'),
    'on a CPU': ('no_sanitizer', 'rehearse'),
    'with --device cuda': ('what', 'no_compile', 'threads', 'memory')}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu',
                        help='cuda: check the kernels, then time them')
    parser.add_argument('--no-sanitizer', action='store_true',
                        help='on a GPU: leave compute-sanitizer out')
    parser.add_argument('--rehearse', action='store_true',
                        help='of --device cuda: run it without a GPU, at tiny '
                        'sizes; the figures mean nothing')
    parser.add_argument(
        '--layers', nargs='+', choices=SHAPE_SETS,
        help='whose layers (default: targets, of several networks; on a GPU '
        'resnet18)')
    parser.add_argument(
        '--what', nargs='+', choices=operators.GROUPS,
        help='kinds of calls (default: all)')
    parser.add_argument(
        '--models', nargs='*', choices=networks.BENCHMARKS,
        help='whole models instead of operators (default: all)')
    parser.add_argument(
        '--no-compile', action='store_true',
        help='models: leave out torch.compile, which takes minutes')
    parser.add_argument('--batch', type=int,
                        help='images per layer (default: as in training '
                        'or inference of the network)')
    parser.add_argument('--threads', type=int, nargs='+',
                        help='one number, or several to compare (default: 1)')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--memory', action='store_true',
                        help='also the peak memory of each call')
    parser.add_argument('--json', metavar='FILE', help='write figures here')
    args = parser.parse_args()
    refuse_without_effect(parser, args)
    args.layers = args.layers or [
        'resnet18' if args.device == 'cuda' else 'targets']
    args.what = args.what or list(operators.GROUPS)
    args.threads = args.threads or [1]
    if args.models is not None:
        known = throughput.NETWORKS if args.device == 'cuda' else \
            networks.BENCHMARKS
        args.models = args.models or list(known)
        for name in args.models:
            if name not in known:
                parser.error(f'--models {name}: with --device {args.device} '
                             f'there are {", ".join(known)}')
    for name in ('batch', 'rounds'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1')
    if min(args.threads) < 1:
        parser.error('--threads must be at least 1')
    if args.batch and 'targets' in args.layers:
        parser.error('--batch: the layers of "targets" have batches of their '
                     'own; choose others with --layers')
    return args


def refuse_without_effect(parser, args):
    """End with a sentence if an option that is given would be ignored."""
    cases = [
        'without --models' if args.models is None else 'with --models',
        'with --device cuda' if args.device == 'cuda' else 'on a CPU']
    for case in reversed(cases):
        for name in WITHOUT_EFFECT[case]:
            if getattr(args, name) not in (None, False):
                parser.error(
                    f'--{name.replace("_", "-")} has no effect {case}')


def processor():
    """Its name, as Linux gives it."""
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.partition(':')[2].strip() for line in file
                     if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def measure_layers(layers, threads, args):
    """{layer: {candidate: seconds}} with a number of threads."""
    torch.set_num_threads(threads)
    results = {}
    with torch.no_grad():
        for layer in layers:
            results[layer] = timing.median_times(
                operators.calls(layer, args.what), args.rounds)
            progress(f'{threads} thread(s): {layer}')
    progress('')
    return results


def measure_memory(layers, args):
    """{layer: {candidate: bytes}} with the first number of threads."""
    torch.set_num_threads(args.threads[0])
    with torch.no_grad():
        return {layer: {
            name: timing.peak_memory(call)
            for name, call in operators.calls(layer, args.what).items()}
            for layer in layers}


def progress(text):
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)


def run_operators(args):
    """Measure, print; the figures as JSON takes them."""
    figures = {}
    for name in args.layers:
        layers = distinct_layers(name, args.batch)
        by_threads = {threads: measure_layers(layers, threads, args)
                      for threads in dict.fromkeys(args.threads)}
        for threads, results in by_threads.items():
            print(f'\n# Layers of {name}, {threads} thread(s)', end='')
            show(summary.operator_table(results, args.what))
            if name == 'targets' and threads == 1:
                show(summary.target_lines(results))
        if len(by_threads) > 1:
            show(summary.scaling_lines(by_threads, args.what))
        figures[name] = dict(seconds={
            threads: {str(layer): times for layer, times in results.items()}
            for threads, results in by_threads.items()})
        if args.memory:
            memory = measure_memory(layers, args)
            show(summary.memory_table(memory))
            figures[name]['peak_bytes'] = {
                str(layer): row for layer, row in memory.items()}
    return figures


def run_models(args):
    figures = {}
    for name in args.models:
        for benchmark in networks.BENCHMARKS[name]():
            for threads in dict.fromkeys(args.threads):
                torch.set_num_threads(threads)
                calls = networks.calls(
                    benchmark, compiled=not args.no_compile)
                times = timing.median_times(calls, args.rounds)
                memory = {variant: timing.peak_memory(call) for variant, call
                          in calls.items()} if args.memory else {}
                errors = (benchmark.errors(calls)
                          if hasattr(benchmark, 'errors') else {})
                print(f'\n# {threads} thread(s)', end='')
                show(summary.model_table(benchmark, times, memory, errors))
                figures[f'{benchmark.title}, {threads} thread(s)'] = dict(
                    seconds=times, peak_bytes=memory, errors=errors)
    return figures


def run_cuda(args):
    device = 'cpu' if args.rehearse else 'cuda'
    if args.rehearse:
        torch.set_num_threads(1)  # all is too small for more
    if args.models:
        MMLogger.get_current_instance().setLevel('WARNING')
        return throughput.measure(
            args.models, args.rounds, device, args.rehearse)
    layers = [layer for name in args.layers
              for layer in distinct_layers(name, args.batch)]
    if args.rehearse:
        layers = [layer._replace(batch=1, size=(5, 7)) for layer in layers]
    return cuda.measure(
        layers, args.rounds, device, not args.no_sanitizer)


def show(lines):
    print(*lines, sep='\n', flush=True)


def describe(args):
    """What the figures depend on: {name: version or model}."""
    machine = dict(processor=processor(), torch=torch.__version__,
                   mmadder=mmadder.__version__)
    if args.rehearse:
        machine.update(rehearsal='on the CPU, the figures mean nothing')
    elif args.device == 'cuda':
        machine.update(cuda.describe_gpu())
    return machine


def main():
    args = parse_args()
    machine = describe(args)
    print(', '.join(f'{key} {value}' for key, value in machine.items()))
    run = (run_cuda if args.device == 'cuda' else
           run_models if args.models else run_operators)
    figures = run(args)
    if args.json:
        write_json(args.json, dict(
            arguments=vars(args), machine=machine, figures=figures))


if __name__ == '__main__':
    if any(os.environ.get(key) != value for key, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  dict(os.environ, **MALLOC))
    import torch
    from mmengine.logging import MMLogger

    import mmadder
    from mmadder import cli, timing
    from mmadder.benchmark import (
        cuda,
        networks,
        operators,
        summary,
        throughput,
    )
    from mmadder.benchmark.shapes import SHAPE_SETS, distinct_layers
    from mmadder.files import write_json
    with cli.short_messages('Interrupted.'):
        main()
