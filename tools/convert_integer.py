"""Write a network of integers as a C99 program or as an ONNX file.

    python tools/convert_integer.py model.npz --c DIR --input-size 224 224
    python tools/convert_integer.py model.npz --onnx model.onnx

model.npz is a file of tools/export_integer.py. Both compute the same bytes as
it does everywhere else.
"""
import argparse

from mmadder import cli
from mmadder.errors import InputError
from mmadder.export import export_integer_onnx
from mmadder.export.onnx_graph import OPSET
from mmadder.files import require_file
from mmadder.integer import IntegerNetwork, write_c_program


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('network', metavar='FILE.npz',
                        help='file of tools/export_integer.py')
    parser.add_argument('--c', metavar='DIR',
                        help='folder for network.c and network.h')
    parser.add_argument('--onnx', metavar='FILE.onnx', help='file to write')
    parser.add_argument('--input-size', nargs=2, type=int,
                        metavar=('HEIGHT', 'WIDTH'),
                        help='of the pictures that the C program takes, '
                        'unless the network takes one size only')
    parser.add_argument('--opset', type=int, default=OPSET,
                        help="version of ONNX's operators, default: "
                        '%(default)s')
    args = parser.parse_args()
    if not (args.c or args.onnx):
        parser.error('give --c, --onnx or both')
    return args


def main():
    args = parse_args()
    require_file(args.network, 'network')
    network = IntegerNetwork.load(args.network)
    if args.onnx:
        if not args.onnx.endswith('.onnx'):
            raise InputError(f'--onnx {args.onnx}: expected a name that ends '
                             'with .onnx')
        export_integer_onnx(network, args.onnx, opset=args.opset)
        print(f'{args.onnx}: written')
    if args.c:
        program = write_c_program(network, args.c, args.input_size)
        binary = program.source.with_suffix('')
        print(f'{program}\nCompile and run it with:\n'
              f'  cc -std=c99 -O2 -o {binary} {program.source}\n'
              f'  {binary} PICTURE.ppm OUTPUT.bin')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing half-written is left.'):
        main()
