"""Draw training and test loss of several runs: Figures 1(a) and 2(d).

    python tools/analysis/plot_losses.py ANN=WORK_DIR CNN=WORK_DIR \\
        --out losses.png --json losses.json

Runs without a logged test loss, such as detectors, are drawn with their
validation metric.
"""
import argparse

from mmadder import cli
from mmadder.files import write_json
from mmadder.reporting.figures import save_figure
from mmadder.reporting.tables import print_table
from mmadder.runs.arguments import parse_runs
from mmadder.runs.losses import (
    choose_curve,
    plot_losses,
    read_curves,
    summarize,
    table_of_points,
)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]WORK_DIR')
    parser.add_argument('--metric', help='validation curve, default: '
                        'test loss if all runs have it, else accuracy or mAP')
    parser.add_argument('--out', metavar='FILE', help='picture to write, '
                        'such as losses.png or losses.pdf')
    parser.add_argument('--json', metavar='FILE', help='write all points')
    return parser.parse_args()


def main():
    args = parse_args()
    runs = {name: read_curves(path)
            for name, path in parse_runs(args.runs).items()}
    metric = choose_curve(runs, args.metric)
    summaries = {name: summarize(run, metric) for name, run in runs.items()}
    print_table(
        ('run', 'train loss', f'{metric}: last', 'best', 'at', 'wobble',
         'worst step', 'not finite'),
        [(name, *(summary[key] for key in (
            'train', 'last', 'best', 'best_step', 'wobble', 'worst_step',
            'not_finite'))) for name, summary in summaries.items()])
    print('\nwobble: mean distance of a validation from the mean of its two '
          'neighbours, behind the\nfirst fifth; worst step: the largest step '
          f'for the worse there.\n\n{metric}')
    print_table(*table_of_points(runs, metric))
    if args.json:
        write_json(args.json, dict(metric=metric, runs={
            name: dict(run, summary=summaries[name])
            for name, run in runs.items()}))
        print(f'written: {args.json}')
    if args.out:
        save_figure(plot_losses(runs, metric), args.out)
        print(f'written: {args.out}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
