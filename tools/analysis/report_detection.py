"""Write a one-page HTML report about a detection run on VOC-style data.

    python tools/test.py CONFIG CHECKPOINT --out results.pkl
    python tools/analysis/report_detection.py CONFIG results.pkl \\
        --run WORK_DIR --out REPORT_DIR
"""
import argparse
from pathlib import Path

from mmadder import cli
from mmadder.analysis import load_detections, run_facts, write_report
from mmadder.runs.arguments import parse_named
from mmadder.runs.scalars import read_scalars


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of the run')
    parser.add_argument('results', help='file of tools/test.py --out')
    parser.add_argument('--run', action='append', default=[],
                        metavar='[NAME=]WORK_DIR',
                        help='work directory with the curves of the '
                        'training; again for more runs in the same figure')
    parser.add_argument('--out', required=True, help='directory to write')
    parser.add_argument('--title', help='default: name of the config')
    cli.add_config_options(parser)
    parser.add_argument('--fact', action='append', default=[],
                        metavar='NAME=VALUE', help='a line for the table of '
                        'settings')
    parser.add_argument('--command', action='append', default=[],
                        help='a line for the list of commands')
    return parser.parse_args()


def main():
    args = parse_args()
    config = cli.load_config(args.config, cfg_options=args.cfg_options,
                             data_root=args.data_root)
    runs = {name: read_scalars(folder)
            for name, folder in parse_named(args.run).items()}
    page, figures = write_report(
        args.out, args.title or Path(args.config).stem,
        load_detections(config, args.results), runs,
        facts=[*(fact.split('=', 1) for fact in args.fact),
               *run_facts(config)],
        commands=args.command)
    print(f'mAP {figures["mAP"]:.3f}, report: {page}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: the report is not whole.'):
        main()
