"""Write a trained model as a network of integers, for anything that adds.

    python tools/export_integer.py CONFIG CHECKPOINT --out model.npz
    python tools/test.py CONFIG model.npz

docs/integer_format.md says what is in the file. Ranges of values are taken
from batches of the validation set.
"""
import argparse
from pathlib import Path

from mmadder import cli
from mmadder.export import export_integer
from mmadder.export.integer_export import BATCHES
from mmadder.reporting.tables import print_table


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of this config, in '
                        'float')
    parser.add_argument('--out', required=True, metavar='FILE.npz',
                        help='file to write')
    parser.add_argument('--calibrate', type=int, default=BATCHES,
                        metavar='BATCHES', help='validation batches to '
                        'calibrate with, default: %(default)s')
    parser.add_argument('--bits', type=int, default=8,
                        help='of what adders read, and of their weights, 2 to '
                        '8, default: %(default)s')
    parser.add_argument('--shift-only', action='store_true',
                        help='behind adders, multiply by powers of two only')
    parser.add_argument('--input-size', nargs=2, type=int,
                        metavar=('HEIGHT', 'WIDTH'),
                        help='the only size of pictures, default: any')
    cli.add_config_options(parser)
    cli.add_classes_option(parser)
    cli.add_trust_option(parser)
    args = parser.parse_args()
    if args.input_size and min(args.input_size) < 1:
        parser.error('--input-size must be at least 1 1')
    if args.calibrate < 1:
        parser.error(f'--calibrate must be at least 1, got {args.calibrate}')
    if not 2 <= args.bits <= 8:
        parser.error(f'--bits must be from 2 to 8, got {args.bits}')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    cfg = cli.load_config(args.config, ('val_dataloader', ),
                          cfg_options=args.cfg_options,
                          data_root=args.data_root, classes=args.classes)
    deviations = export_integer(
        cfg, args.checkpoint, args.out, batches=args.calibrate,
        bits=args.bits, shift_only=args.shift_only,
        size=tuple(args.input_size) if args.input_size else None)
    print_table(
        ('output', 'deviation from float', 'spread'),
        [(found.output, f'{found.error:.3g}', f'{found.spread:.3g}')
         for found in deviations])
    size = Path(args.out).stat().st_size / 2**20
    print(f'{args.out}: written, {size:.1f} MiB\n'
          f'Evaluate it with: python tools/test.py {args.config} {args.out}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
