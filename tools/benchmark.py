"""Times adder_conv2d beside conv2d and unfold + cdist on ResNet-18's layers.

All candidates run in turn, round by round, in one process; the table gives
the median of each and ratios, which drift less than absolute times. Forward
and backward are timed apart; backward includes both gradients.

Example:
    python tools/benchmark.py --batch 4 --threads 2 --json benchmark.json
"""
import argparse
import json
import os
import statistics
import sys
import time

# Memory that malloc returns to the system is faulted in again at every call,
# which costs whoever allocates most, not whoever computes most.
MALLOC = dict(MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_='4000000000',
              MALLOC_TOP_PAD_='67108864')

# name: (in channels, in size, out channels, kernel, stride)
RESNET18 = {
    'layer1 3x3': (64, 56, 64, 3, 1),
    'layer2 3x3 /2': (64, 56, 128, 3, 2),
    'layer2 1x1 /2': (64, 56, 128, 1, 2),
    'layer2 3x3': (128, 28, 128, 3, 1),
    'layer3 3x3 /2': (128, 28, 256, 3, 2),
    'layer3 1x1 /2': (128, 28, 256, 1, 2),
    'layer3 3x3': (256, 14, 256, 3, 1),
    'layer4 3x3 /2': (256, 14, 512, 3, 2),
    'layer4 1x1 /2': (256, 14, 512, 1, 2),
    'layer4 3x3': (512, 7, 512, 3, 1),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu',
                        help='cuda: check the kernels, then time them')
    parser.add_argument('--batch', type=int, default=4, help='images')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--layers', default='',
                        help='only layers whose name holds this text')
    parser.add_argument('--json', metavar='FILE', help='write figures here')
    args = parser.parse_args()
    for name in ('batch', 'threads', 'rounds'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1')
    return args


def cdist_conv2d(input, weight, stride, padding):
    """The adder convolution without this package: unfold and cdist(p=1)."""
    size = [(extent + 2 * padding - weight.shape[-1]) // stride + 1
            for extent in input.shape[2:]]
    columns = torch.nn.functional.unfold(
        input, weight.shape[2:], stride=stride, padding=padding)
    distances = torch.cdist(columns.transpose(1, 2).flatten(0, 1),
                            weight.flatten(1), p=1)
    return -distances.view(len(input), *size, -1).permute(0, 3, 1, 2)


def median_times(candidates, rounds, least=0.02):
    """Median seconds of each callable, interleaved round by round."""
    repeats = []
    for run in candidates:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, int(least / (time.perf_counter() - start))))
    times = [[] for _ in candidates]
    for _ in range(rounds):
        for run, count, taken in zip(candidates, repeats, times):
            start = time.perf_counter()
            for _ in range(count):
                run()
            taken.append((time.perf_counter() - start) / count)
    return [statistics.median(taken) for taken in times]


def measure(batch, rounds, in_channels, size, out_channels, kernel, stride):
    """Seconds of each candidate for one layer, forward and backward."""
    padding = kernel // 2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, in_channels, size, size, generator=generator)
    x = x.relu().requires_grad_()
    w = torch.randn(out_channels, in_channels, kernel, kernel,
                    generator=generator, requires_grad=True)
    layers = dict(
        conv2d=lambda: torch.nn.functional.conv2d(x, w, None, stride, padding),
        adder=lambda: adder_conv2d(x, w, None, stride, padding),
        cdist=lambda: cdist_conv2d(x, w, stride, padding))
    outputs = {name: layer() for name, layer in layers.items()}
    grad = torch.randn(outputs['adder'].shape, generator=generator)

    def backward(output):
        return lambda: torch.autograd.grad(
            output, (x, w), grad, retain_graph=True)

    with torch.no_grad():
        forward_times = median_times(list(layers.values()), rounds)
    backward_times = median_times(
        [backward(output) for output in outputs.values()], rounds)
    return {direction: dict(zip(layers, times)) for direction, times in (
        ('forward', forward_times), ('backward', backward_times))}


def main():
    args = parse_args()
    if args.device == 'cuda':
        layers = {name: layer for name, layer in RESNET18.items()
                  if args.layers in name}
        return cuda_benchmark.main(layers, args.batch, args.rounds, args.json)
    torch.set_num_threads(args.threads)
    print(f'ResNet-18 layers, batch {args.batch}, {args.threads} thread(s), '
          f'float32, {torch.__version__}')
    print(f'{"":14} {"forward":^38} {"backward":^38}')
    heading = f'{"adder ms":>10}{"conv2d/adder":>14}{"cdist/adder":>14}'
    print(f'{"layer":14} {heading} {heading}')
    results = {}
    for name, layer in RESNET18.items():
        if args.layers not in name:
            continue
        results[name] = measure(args.batch, args.rounds, *layer)
        line = f'{name:14} '
        for times in results[name].values():
            line += (f'{1e3 * times["adder"]:10.2f}'
                     f'{times["conv2d"] / times["adder"]:14.2f}'
                     f'{times["cdist"] / times["adder"]:14.1f} ')
        print(line, flush=True)
    if not results:
        sys.exit(f'no layer has {args.layers!r} in its name; '
                 f'there are: {", ".join(RESNET18)}')
    line = f'{"geometric mean":14} '
    for direction in ('forward', 'backward'):
        means = [statistics.geometric_mean(
            times[direction][peer] / times[direction]['adder']
            for times in results.values()) for peer in ('conv2d', 'cdist')]
        line += f'{"":10}{means[0]:14.2f}{means[1]:14.1f} '
    print(line)
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(dict(arguments=vars(args), seconds=results), file,
                      indent=1)


if __name__ == '__main__':
    if any(os.environ.get(key) != value for key, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  dict(os.environ, **MALLOC))
    import cuda_benchmark
    import torch

    from mmadder.ops import adder_conv2d
    main()
