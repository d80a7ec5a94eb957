"""Put several trainings into one figure and one table.

    python tools/compare_runs.py WORK_DIR WORK_DIR ... --out DIR
    python tools/compare_runs.py AWN=DIR,DIR CNN=DIR,DIR --out DIR

The second form takes several seeds of one configuration together. Works for
MMDetection and MMPretrain, for resumed trainings and for one that still runs.
"""
import argparse

from mmadder import cli
from mmadder.runs.arguments import parse_groups
from mmadder.runs.comparison import write_comparison


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]DIR[,DIR...]',
                        help='work directory of a training, or those of its '
                        'seeds')
    parser.add_argument('--out', required=True, metavar='DIR',
                        help='folder for comparison.png, .md and .json')
    parser.add_argument('--names', nargs='+', help='one for each argument, '
                        'default: names of the folders')
    parser.add_argument('--metric', metavar='KEY', help='validation metric, '
                        'default: the mAP or accuracy that all runs have')
    return parser.parse_args()


def main():
    args = parse_args()
    text, paths = write_comparison(
        args.out, parse_groups(args.runs, args.names), args.metric)
    print(text, *map(str, paths), sep='\n')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
