"""Write a trained model as an ONNX file, and compare both on real pictures.

    python tools/export_onnx.py CONFIG CHECKPOINT --out model.onnx
    python tools/test.py CONFIG model.onnx

The file has standard operators only. It is kept if its outputs on pictures of
the config's test set are those of PyTorch.
"""
import argparse

from mmadder import cli
from mmadder.export import OPSET, Parity, export_onnx
from mmadder.export.onnx_export import PICTURES
from mmadder.export.onnx_parity import TOLERANCE
from mmadder.reporting.tables import print_table


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of this config, in '
                        'float')
    parser.add_argument('--out', required=True, metavar='FILE.onnx',
                        help='file to write')
    size = parser.add_mutually_exclusive_group()
    size.add_argument('--input-size', nargs=2, type=int,
                      metavar=('HEIGHT', 'WIDTH'),
                      help='of the pictures that the file takes, default: '
                      'those of the test set; smaller ones are padded')
    size.add_argument('--dynamic-size', action='store_true',
                      help='the file takes pictures of any size')
    parser.add_argument('--dense', action='store_true',
                        help='of a detector, only up to the tensors of its '
                        'neck and dense head')
    parser.add_argument('--opset', type=int, default=OPSET,
                        help="version of ONNX's operators, default: "
                        '%(default)s')
    parser.add_argument('--pictures', type=int, default=PICTURES,
                        help='of the test set, to compare on, default: '
                        '%(default)s')
    parser.add_argument('--tolerance', type=float, default=TOLERANCE,
                        help="largest deviation of a tensor, as a part of its "
                        'largest value, default: %(default)s')
    cli.add_config_options(parser)
    cli.add_classes_option(parser)
    cli.add_trust_option(parser)
    args = parser.parse_args()
    if args.input_size and min(args.input_size) < 1:
        parser.error('--input-size must be at least 1 1')
    if args.pictures < 1:
        parser.error(f'--pictures must be at least 1, got {args.pictures}')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    cfg = cli.load_config(args.config, ('test_dataloader', ),
                          cfg_options=args.cfg_options,
                          data_root=args.data_root, classes=args.classes)
    export_onnx(
        cfg, args.checkpoint, args.out, dense=args.dense,
        size=tuple(args.input_size) if args.input_size else None,
        dynamic_size=args.dynamic_size, opset=args.opset,
        pictures=args.pictures, tolerance=args.tolerance, report=print_parity)
    advice = '' if args.dense else (
        f'\nEvaluate it with: python tools/test.py {args.config} {args.out}')
    print(f'{args.out}: written{advice}')


def print_parity(parity: Parity):
    """Print what was compared, size and time."""
    print_table(
        ('output', 'values', 'largest', 'deviation', 'bound'),
        [(found.output, found.values, f'{found.largest:.4g}',
          f'{found.deviation:.2g}', f'{found.bound:.2g}')
         for found in parity.comparisons])
    print(f'on {parity.pictures} test pictures, one by one and as a batch; '
          f'{parity.bytes / 2**20:.1f} MiB')
    print_table(
        ('one picture', 'ms'),
        [(name, f'{1e3 * seconds:.1f}')
         for name, seconds in parity.seconds.items()])
    print(f'with {parity.threads} threads each')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
