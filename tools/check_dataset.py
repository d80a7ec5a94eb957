"""Tell what is in the data sets of a config, before anyone trains on them.

    python tools/check_dataset.py CONFIG --data-root DIR --out DIR

Of every split: pictures, sizes, boxes, balance of the classes, every fault
with the names of its files, and a sheet of annotated pictures. The headers of
all pictures are read; those of the sheets are decoded. Ends with exit code 2
where a training would stop.
"""
import argparse
from pathlib import Path

import cv2

from mmadder import cli
from mmadder.analysis import dataset_check
from mmadder.cli.data_root import DATALOADERS
from mmadder.errors import InputError
from mmadder.files import whole_file
from mmadder.reporting.tables import print_table


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', default='outputs', metavar='DIR',
                        help='folder for the sheets, default: %(default)s')
    parser.add_argument('--pictures', type=int, default=16, metavar='N',
                        help='pictures in a sheet, default: %(default)s')
    cli.add_config_options(parser)
    cli.add_classes_option(parser)
    args = parser.parse_args()
    if args.pictures < 1:
        parser.error(f'--pictures must be at least 1, got {args.pictures}')
    return args


def main():
    args = parse_args()
    cfg = cli.load_config(args.config, DATALOADERS,
                          cfg_options=args.cfg_options,
                          data_root=args.data_root, classes=args.classes)
    splits = []
    for split in dataset_check.read_splits(cfg, DATALOADERS):
        splits.append(split)
        print(f'\n{split.name}: {len(split.samples)} pictures of '
              f'{split.source}')
        if split.samples:
            show(split, cfg)
            write_sheet(split, Path(args.out), len(splits), args.pictures)
        print_list('faults that stop a training', split.problems)
        print_list('to look at', split.findings)
    print_list('to look at, of several splits',
               dataset_check.shared_pictures(splits))
    faults = sum(len(split.problems) for split in splits)
    if faults:
        raise InputError(f'{faults} faults, listed above, would stop a '
                         'training')
    print('\nNo fault would stop a training.')


def show(split, cfg):
    for line in dataset_check.describe(split, cfg):
        print(f'  {line}')
    counts = split.counts()
    total = sum(labels for _, labels, _ in counts) or 1
    print_table(('class', 'examples', 'share', 'pictures'), [
        (name, labels, f'{labels / total:.1%}', pictures)
        for name, labels, pictures in counts])


def write_sheet(split, out, number, count):
    sheet = dataset_check.draw_sheet(split, count)
    if sheet is None:
        return
    name = split.name.split('_')[0]
    with whole_file(out / f'{number}-{name}.png') as partial:
        cv2.imwrite(str(partial), sheet)
    print(f'  annotated pictures: {out / f"{number}-{name}.png"}')


def print_list(title, lines):
    if lines:
        print(f'  {title}:', *lines, sep='\n    ')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: sheets written so far are kept.'):
        main()
