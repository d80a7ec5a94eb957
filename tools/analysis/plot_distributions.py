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
from pathlib import Path

from mmadder import cli
from mmadder.errors import InputError
from mmadder.files import write_json
from mmadder.reporting.tables import text_table
from mmadder.runs.distributions import describe, plot_epochs, plot_fits
from mmadder.runs.recording import QUANTITIES, parse_runs, read_recording


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
    several = len(args.epochs or ()) > 1
    quantities = args.quantity or (
        ['feature'] if several else ['normalized', 'weight'])
    layers = {name: args.layer or run.default_layer()
              for name, run in runs.items()}
    found = {name: {quantity: [
        describe_or_none(run, layers[name], quantity, epoch)
        for epoch in args.epochs or [None]] for quantity in quantities}
        for name, run in runs.items()}
    print_table(found, layers)
    if args.json:
        write_json(args.json, dict(
            layers=layers, units={n: run.unit for n, run in runs.items()},
            runs=found))
        print(f'written: {args.json}')
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        unit = next(iter(runs.values())).unit
        draw(found, layers, several, unit).savefig(args.out)
        print(f'written: {args.out}')


def describe_or_none(run, layer, quantity, epoch):
    """A layer without batch norm has no normalized features."""
    if quantity == 'normalized' and layer in run.layers and not run.has(
            layer, 'normalized_var'):
        return None
    return describe(run, layer, quantity, epoch)


def print_table(found, layers):
    rows = []
    for name, quantities in found.items():
        for quantity, descriptions in quantities.items():
            for one in filter(None, descriptions):
                fits = one['fits']
                rows.append((name, quantity, one['step'], one['mean'],
                             one['std'], *(fits[kind][key]
                                           for kind in ('laplace', 'gaussian')
                                           for key in ('loc', 'variance',
                                                       'distance'))))
    for name, layer in layers.items():
        print(f'{name}: {layer}')
    if not rows:
        raise InputError('none of the layers has what was asked for')
    print(text_table(
        ('run', 'quantity', 'epoch', 'mean', 'std', 'Laplace', 'variance',
         'distance', 'normal', 'variance', 'distance'), rows))
    print('\ndistance: total variation between histogram and fit, from 0, '
          'equal, to 1, apart')


def draw(found, layers, several, unit):
    if not several:
        return plot_fits([
            [(f'{name}: {layers[name]}', quantity, descriptions[0])
             for quantity, descriptions in quantities.items()]
            for name, quantities in found.items()])
    return plot_epochs({
        f'{name}: {layers[name]}'
        + (f', {quantity}' if len(quantities) > 1 else ''): [
            one for one in descriptions if one is not None]
        for name, quantities in found.items()
        for quantity, descriptions in quantities.items()
        if any(descriptions)}, unit)


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
