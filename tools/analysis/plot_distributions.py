"""Draw distributions of a layer's weights and features: Figures 1 and 3.

One epoch, with fitted Laplace and normal distributions (Figure 1):

    python tools/analysis/plot_distributions.py ANN=WORK_DIR CNN=WORK_DIR \\
        --layer backbone.layer3.2.conv2 --quantity normalized weight

Several epochs, with mean and standard deviation (Figure 3):

    python tools/analysis/plot_distributions.py ANN=WORK_DIR AWN=WORK_DIR \\
        --layer backbone.layer3.2.conv2 --quantity feature --epochs 1 20 40

The runs must have been trained with --record of tools/train.py.
"""
import argparse

from mmadder import cli
from mmadder.files import write_json
from mmadder.reporting.figures import save_figure
from mmadder.reporting.tables import print_table
from mmadder.runs.arguments import parse_runs
from mmadder.runs.distributions import (
    describe_runs,
    plot_runs,
    table_of_fits,
)
from mmadder.runs.recording import QUANTITIES, read_recording


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]WORK_DIR')
    parser.add_argument('--layer', help='module name, default: the deepest '
                        'adder of the backbone')
    parser.add_argument('--list', action='store_true',
                        help='print the names of all layers, and stop')
    parser.add_argument('--quantity', nargs='+', choices=QUANTITIES,
                        help='weight: the parameter; filter: behind the '
                        'weight norm; feature and normalized: before and '
                        'behind batch norm (default: normalized weight; '
                        'with several epochs: feature)')
    parser.add_argument('--epochs', type=int, nargs='+', metavar='N',
                        help='default: the last; iterations where these were '
                        'recorded')
    parser.add_argument('--out', metavar='FILE', help='picture to write')
    parser.add_argument('--json', metavar='FILE',
                        help='write numbers and histograms')
    return parser.parse_args()


def main():
    args = parse_args()
    runs = {name: read_recording(path)
            for name, path in parse_runs(args.runs).items()}
    if args.list:
        for name, run in runs.items():
            print(name, *(f'  {layer} ({run.kind(layer)})'
                          for layer in run.layers), sep='\n')
        return
    layers = {name: args.layer or run.default_layer()
              for name, run in runs.items()}
    several = len(args.epochs or ()) > 1
    found = describe_runs(
        runs, layers, args.quantity or (
            ['feature'] if several else ['normalized', 'weight']),
        args.epochs)
    unit = next(iter(runs.values())).unit
    for name, layer in layers.items():
        print(f'{name}: {layer}')
    print_table(*table_of_fits(found, unit))
    print('\ndistance: total variation between histogram and fit, from 0, '
          'equal, to 1, apart')
    if args.json:
        write_json(args.json, dict(
            layers=layers, units={n: run.unit for n, run in runs.items()},
            runs=found))
        print(f'written: {args.json}')
    if args.out:
        save_figure(plot_runs(found, layers, unit), args.out)
        print(f'written: {args.out}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
