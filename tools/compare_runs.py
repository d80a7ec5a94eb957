"""Put several trainings into one figure and one table.

    python tools/compare_runs.py WORK_DIR WORK_DIR ... --out DIR
    python tools/compare_runs.py AWN=DIR,DIR CNN=DIR,DIR --out DIR

The second form takes several seeds of one configuration together. Works for
MMDetection and MMPretrain, for resumed trainings and for one that still runs.
"""
import argparse
import os.path as osp

from mmadder import cli
from mmadder.errors import InputError
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
        args.out, name_runs(args.runs, args.names), args.metric)
    print(text, *map(str, paths), sep='\n')


def name_runs(runs, names=None):
    """Return a dict of a name to its folders."""
    if names and len(names) != len(runs):
        raise InputError(f'--names has {len(names)} names for {len(runs)} '
                         'runs')
    groups = {}
    for i, run in enumerate(runs):
        name, folders = split_run(run)
        name = names[i] if names else name
        if name in groups:
            raise InputError(f'two runs are called {name!r}; name them with '
                             'NAME=DIR or --names')
        groups[name] = folders
    return groups


def split_run(text):
    """Split [NAME=]DIR[,DIR...]; a folder may have = and , in its name."""
    if osp.isdir(text):
        return osp.basename(osp.abspath(text)), [text]
    name, equals, folders = text.partition('=')
    if not equals:
        name, folders = '', text
    folders = [folder for folder in folders.split(',') if folder]
    if not folders:
        raise InputError(f'{text!r} names no folder, expected '
                         '[NAME=]DIR[,DIR...]')
    return name or osp.basename(osp.abspath(folders[0])), folders


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
