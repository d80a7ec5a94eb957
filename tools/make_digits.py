"""Make a VOC-format detection set of real handwritten digits.

    python tools/make_digits.py data/digits
"""
import argparse

from mmadder import cli
from mmadder.datasets import make_digits


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='directory to write')
    for name, default in (('scenes', (1200, 200, 300)),
                          ('crops', (4000, 500, 500))):
        parser.add_argument(
            f'--{name}', type=int, nargs=3, default=default,
            metavar=('TRAIN', 'VAL', 'TEST'),
            help='pictures of each split, default: %(default)s')
    parser.add_argument('--size', type=int, default=128,
                        help='side of a scene in pixels')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main():
    args = parse_args()
    written = make_digits(args.out, args.scenes, args.crops, args.size,
                          seed=args.seed)
    print(f'{args.out}: {"written" if written else "is there already"}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was kept.'):
        main()
