"""Count operations, parameters and energy of a config's model.

    python tools/get_complexity.py CONFIG [--shape HEIGHT WIDTH] [--json FILE]

For one picture of the size that the config tests with. Batch norms and
weight normalization are not counted; energy is that of 45 nm.
"""
import argparse

from mmadder import cli
from mmadder.analysis.complexity import (
    count_operations,
    input_shape,
    table_of_counts,
)
from mmadder.errors import InputError
from mmadder.files import write_json
from mmadder.models import build_model
from mmadder.reporting.tables import print_table


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
    print_counts(counts)
    if args.json:
        write_json(args.json, counts)
        print(f'written: {args.json}')


def print_counts(counts):
    """Print layers with operations, then the parts and the total."""
    print_table(*table_of_counts(counts))
    height, width = counts['input_shape']
    print(f'\nOne picture of {width}x{height} pixels (width x height)'
          + (f', {counts["proposals"]} proposals' if counts['proposals']
             else '') + '. Norms have parameters only.')
    if counts['not_counted']:
        print('NOT counted, no rule for: ' + ', '.join(counts['not_counted']))


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
