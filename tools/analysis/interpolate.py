"""Test a network on the straight line between two checkpoints: Figure 2(c).

    python tools/analysis/interpolate.py CONFIG epoch_12.pth epoch_16.pth \\
        --json ann.json --out ann.png

works for classifiers (accuracy) and detectors (mAP). A second curve has the
statistics of the batch norms measured anew on training batches at each point.
An interrupted run goes on from its --json file. Several such files in one
picture and table:

    python tools/analysis/interpolate.py --merge ANN=ann.json AWN=awn.json \\
        --out interpolation.png
"""
import argparse
import hashlib
from pathlib import Path

from mmengine.logging import MMLogger
from tqdm import tqdm

from mmadder import cli
from mmadder.analysis.checkpoint_pair import load_pair
from mmadder.analysis.interpolation import (
    Interpolation,
    common_metric,
    curve_labels,
    plot_interpolations,
    read_result,
    table_of_points,
)
from mmadder.analysis.testing import TestSet, training_batches
from mmadder.errors import InputError
from mmadder.files import require_file, write_json
from mmadder.models import build_model
from mmadder.reporting.figures import save_figure
from mmadder.reporting.tables import print_table
from mmadder.runs.arguments import parse_named
from mmadder.statistics import find_norms


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?')
    parser.add_argument('first', nargs='?', help='checkpoint at t = 0')
    parser.add_argument('second', nargs='?', help='checkpoint at t = 1')
    parser.add_argument('--points', type=int, default=9,
                        help='between the checkpoints, default 9')
    parser.add_argument('--images', type=int, help='a random choice of so '
                        'many test images, default: all')
    parser.add_argument('--batches', type=int, default=20, metavar='N',
                        help='training batches to estimate the statistics of '
                        'batch norms from, default 20; 0 leaves the second '
                        'curve out')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the choice of images and batches')
    parser.add_argument('--metric', help='to show; all are kept in the JSON')
    parser.add_argument('--json', metavar='FILE', help='results; an existing '
                        'file of the same run is continued')
    parser.add_argument('--out', metavar='FILE', help='picture to write')
    parser.add_argument('--merge', nargs='+', metavar='[NAME=]FILE',
                        help='JSON files to show together')
    cli.add_device_option(parser)
    cli.add_config_options(parser)
    cli.add_trust_option(parser)
    args = parser.parse_args()
    if bool(args.merge) == bool(args.second):
        parser.error('expected either CONFIG FIRST SECOND or --merge')
    if args.points < 1 or args.batches < 0:
        parser.error('--points must be at least 1 and --batches at least 0')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    if args.merge:
        results = {name: read_result(file)
                   for name, file in parse_named(args.merge).items()}
        if args.json:
            write_json(args.json, results)
    else:
        # One table of metrics per point, between progress bars, is no help.
        MMLogger.get_current_instance().setLevel('WARNING')
        interpolation = prepare(args)
        results = {Path(args.config).stem: interpolation.run(progress)}
    print_points(results, args.metric)
    if args.out:
        save_figure(plot_interpolations(results, args.metric), args.out)
        print(f'written: {args.out}')


def prepare(args):
    names = args.first, args.second
    for name in names:
        require_file(name, 'checkpoint')
    loaders = ('test_dataloader', 'train_dataloader')
    cfg = cli.load_config(
        args.config, loaders[:1 + bool(args.batches)],
        cfg_options=args.cfg_options, data_root=args.data_root)
    model = build_model(cfg)
    pair = load_pair(model, names)
    if args.batches and not find_norms(model):
        raise InputError(f'{args.config} has no batch norm whose statistics '
                         'could be estimated anew: give --batches 0')
    settings = dict(
        config=Path(args.config).name, seed=args.seed,
        checkpoints=[Path(name).name for name in names],
        digests=[hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
                 for name in names])
    return Interpolation(
        model.to(args.device), pair, TestSet(cfg, args.images, args.seed),
        args.points, training_batches(cfg, args.batches, args.seed),
        args.json, settings)


def progress(iterable, text):
    return tqdm(iterable, desc=text, unit='batch', leave=False)


def print_points(results, metric):
    """Print all points, then variances between the endpoints."""
    metric = common_metric(results, metric)
    for i, text in enumerate(curve_labels(results, metric)):
        print(f'({i + 1}) {text}')
    print_table(*table_of_points(results, metric))
    print('\nIn percent; mean, least and population variance are of the '
          'points between the checkpoints.')


if __name__ == '__main__':
    with cli.short_messages('Interrupted. The same command with --json goes '
                            'on from the last point.'):
        main()
