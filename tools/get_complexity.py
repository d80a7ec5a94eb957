"""Count operations, parameters and energy of a config's model.

    python tools/get_complexity.py CONFIG [--shape HEIGHT WIDTH] [--json FILE]
    python tools/get_complexity.py model.npz [--shape HEIGHT WIDTH]

For one picture of the size that the config tests with. Batch norms and
weight normalization are not counted; energy is that of 45 nm. Of a network of
integers, a file of tools/export_integer.py: operations by their width, bytes
of weights and of maps.
"""
import argparse

from mmadder import cli
from mmadder.analysis.complexity import (
    count_operations,
    input_shape,
    table_of_counts,
)
from mmadder.analysis.integer_complexity import (
    count_integers,
    table_of_integers,
)
from mmadder.errors import InputError
from mmadder.export import is_integer
from mmadder.files import write_json
from mmadder.integer import IntegerNetwork
from mmadder.models import build_model
from mmadder.reporting.tables import print_table


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file, or a network of integers '
                        '(.npz)')
    parser.add_argument('--shape', type=int, nargs=2,
                        metavar=('HEIGHT', 'WIDTH'), help='picture size in '
                        "pixels, default: that of the config's test "
                        'pipeline, or of the network of integers')
    parser.add_argument('--json', metavar='FILE',
                        help='write all figures to a file')
    cli.add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    if args.shape and min(args.shape) < 1:
        raise InputError(f'--shape must be positive, got {args.shape}')
    if is_integer(args.config):
        counts = count_file(args)
        print_integers(counts)
    else:
        config = cli.load_config(args.config, cfg_options=args.cfg_options)
        shape = tuple(args.shape or input_shape(config))
        counts = count_operations(build_model(config), shape)
        print_counts(counts)
    if args.json:
        write_json(args.json, counts)
        print(f'written: {args.json}')


def count_file(args):
    """Counts of a network of integers."""
    if args.cfg_options:
        raise InputError(f'--cfg-options change a config, {args.config} is a '
                         'network of integers: leave them out')
    network = IntegerNetwork.load(args.config)
    shape = args.shape or network.size
    if shape is None:
        raise InputError('this network of integers takes pictures of any '
                         'size: give one as --shape HEIGHT WIDTH')
    return count_integers(network, shape)


def print_integers(counts):
    """Print steps with operations, then the total."""
    print_table(*table_of_integers(counts))
    height, width = counts['input_shape']
    print(f'\nOne picture of {width}x{height} pixels (width x height). Maps '
          'of codes share memory: their total is what lives at a time; the '
          f'largest of all is {counts["largest_map"]}.')


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
