"""Count operations, parameters and energy of a config's model.

    python tools/get_complexity.py CONFIG [--shape HEIGHT WIDTH] [--json FILE]

For one picture of the size that the config tests with. Batch norms and
weight normalization are not counted; energy is that of 45 nm.
"""
import argparse

from mmadder import cli
from mmadder.analysis.complexity import count_operations, input_shape
from mmadder.errors import InputError
from mmadder.files import write_json
from mmadder.models import build_model

COLUMNS = ('multiplications', 'additions', 'parameters', 'energy_fp32_uJ',
           'energy_int8_uJ')
HEADER = ('multiplications', 'additions', 'parameters', 'fp32 uJ', 'int8 uJ')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--shape', type=int, nargs=2,
                        metavar=('HEIGHT', 'WIDTH'), help='picture size in '
                        "pixels, default: that of the config's test pipeline")
    parser.add_argument('--json', metavar='FILE',
                        help='write all figures to a file')
    cli.add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    config = cli.load_config(args.config, cfg_options=args.cfg_options)
    if args.shape and min(args.shape) < 1:
        raise InputError(f'--shape must be positive, got {args.shape}')
    shape = tuple(args.shape or input_shape(config))
    counts = count_operations(build_model(config), shape)
    print_table(counts)
    if args.json:
        write_json(args.json, counts)
        print(f'written: {args.json}')


def print_table(counts):
    """Print layers with operations, then the parts and the total."""
    layers = [row for row in counts['layers'] if row['calls']]
    width = max(len(label(row)) for row in layers)
    line = f'{{:{width}}}' + ' {:>17}' * len(COLUMNS)
    print(line.format('layer', *HEADER))
    for row in layers:
        print(line.format(label(row), *figures(row)))
    print()
    for name, part in counts['parts'].items():
        print(line.format(name, *figures(part)))
    print(line.format('total', *figures(counts)))
    height, wide = counts['input_shape']
    print(f'\nOne picture of {wide}x{height} pixels (width x height)'
          + (f', {counts["proposals"]} proposals' if counts['proposals']
             else '') + '. Norms have parameters only.')
    if counts['not_counted']:
        print('NOT counted, no rule for: ' + ', '.join(counts['not_counted']))


def label(row):
    calls = f' x{row["calls"]}' if row['calls'] > 1 else ''
    return f'{row["name"]} ({row["type"]}){calls}'


def figures(row):
    return [f'{row[key]:,}' if isinstance(row[key], int)
            else f'{row[key]:,.3f}' for key in COLUMNS]


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
