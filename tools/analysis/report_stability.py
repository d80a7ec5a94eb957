"""Write one HTML page about the stability of trainings.

    python tools/analysis/report_stability.py WORK_DIRS --out report.html
    python tools/analysis/report_stability.py ANN=DIR AWN=DIR --out report.html

Which run is steady, where variance grows, in which layers. A directory that
holds several runs stands for all of them. Curves need nothing but MMEngine's
log; layers need --record of tools/train.py.
"""
import argparse

from mmadder import cli
from mmadder.files import write_json
from mmadder.reporting.tables import print_table
from mmadder.runs.arguments import parse_runs
from mmadder.runs.stability import table_of_studies, verdicts
from mmadder.runs.stability_report import write_stability_report


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='[NAME=]WORK_DIR')
    parser.add_argument('--out', required=True, metavar='DIR|FILE.html',
                        help='page to write; in a directory: index.html')
    parser.add_argument('--metric', help='validation metric to judge by, '
                        'default: test loss, mAP or accuracy, the first that '
                        'all runs have')
    parser.add_argument('--layer', help='whose features to show, default: '
                        'the deepest adder of the backbone')
    parser.add_argument('--title', default='Stability of trainings')
    parser.add_argument('--json', metavar='FILE', help='write all numbers')
    return parser.parse_args()


def main():
    args = parse_args()
    page, found = write_stability_report(
        args.out, parse_runs(args.runs), args.metric, args.layer, args.title)
    metric, studies = found['metric'], found['runs']
    print_table(*table_of_studies(studies, metric))
    print()
    for name, text in verdicts(studies, metric):
        print(f'{name}: {text}')
    if args.json:
        write_json(args.json, found)
        print(f'written: {args.json}')
    print(f'report: {page}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: the report is not whole.'):
        main()
