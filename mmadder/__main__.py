"""``python -m mmadder``: see what it can do, and where its configs lie."""
import argparse
import sys
from pathlib import Path

from mmadder.errors import InputError
from mmadder.files import shipped

DEMO = 'digits'


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m mmadder')
    commands = parser.add_subparsers(required=True, dest='command')
    configs = commands.add_parser(
        'configs', help='print the paths of the configs, for _base_ in your '
        'own or for tools/train.py')
    configs.add_argument('text', nargs='?', default='',
                         help='only paths that contain it')
    demo = commands.add_parser(
        'demo', help='draw what a shipped network of integers sees')
    demo.add_argument('picture', nargs='?', help='default: one that is '
                      'shipped')
    demo.add_argument('--weights', default=DEMO, metavar='NAME',
                      help='shipped weights, or a file of '
                      'tools/export_integer.py or tools/export_onnx.py, '
                      'default: %(default)s')
    demo.add_argument('--out', default='outputs', metavar='DIR',
                      help='folder for the picture, default: %(default)s')
    demo.add_argument('--score-thr', type=float, default=0.3,
                      help='least score of a box, default: %(default)s')
    return parser.parse_args()


def print_configs(args):
    folder = shipped('configs')
    paths = [path for path in sorted(folder.rglob('*.py'))
             if args.text in str(path.relative_to(folder))]
    if not paths:
        raise InputError(f'mmadder: no config in {folder} has {args.text!r} '
                         'in its path')
    print(*paths, sep='\n')


def draw_demo(args):
    from mmadder.apis import WEIGHTS, load
    seen = load(args.weights)
    picture = Path(args.picture or shipped(WEIGHTS) / f'{args.weights}.jpg')
    if not args.picture and not picture.is_file():
        raise InputError(f'no picture is shipped for --weights {args.weights}'
                         ': name one, python -m mmadder demo PICTURE')
    out = Path(args.out) / f'{picture.stem}.png'
    if out.resolve() == picture.resolve():
        raise InputError(f'--out {args.out} is the folder of the picture, '
                         'which would be overwritten; choose another')
    found = seen.draw(picture, out, args.score_thr)
    print(f'{picture}: {found}, drawn in {out}')


def main():
    args = parse_args()
    try:
        dict(configs=print_configs, demo=draw_demo)[args.command](args)
    except InputError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
