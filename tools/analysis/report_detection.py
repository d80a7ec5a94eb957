"""Write a one-page HTML report about a detection run on VOC-style data.

    python tools/test.py CONFIG CHECKPOINT --out results.pkl
    python tools/analysis/report_detection.py CONFIG results.pkl \\
        --run WORK_DIR --out REPORT_DIR
"""
import argparse
import json
import os.path as osp
import platform
from pathlib import Path

import mmcv
import mmdet
import mmengine
import mmpretrain
import torch
from mmengine.config import Config, DictAction

import mmadder
from mmadder.analysis import load_detections, write_report
from mmadder.analysis.plots import read_scalars
from mmadder.engine import cli, replace_data_root


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
    parser.add_argument('--data-root', help='as for tools/test.py')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        default={}, metavar='KEY=VALUE')
    parser.add_argument('--fact', action='append', default=[],
                        metavar='NAME=VALUE', help='a line for the table of '
                        'settings')
    parser.add_argument('--command', action='append', default=[],
                        help='a line for the list of commands')
    return parser.parse_args()


def main():
    args = parse_args()
    cli.require_file(args.config, 'config')
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    if args.data_root:
        replace_data_root(config, args.data_root)
    runs = {}
    for run in args.run:
        name, _, folder = run.rpartition('=')
        runs[name or osp.basename(osp.normpath(folder))] = read_scalars(folder)
    page, figures = write_report(
        args.out, args.title or Path(args.config).stem,
        load_detections(config, args.results), runs,
        facts=[*(fact.split('=', 1) for fact in args.fact), *facts(config)],
        commands=args.command)
    Path(args.out, 'summary.json').write_text(json.dumps(figures, indent=1))
    print(f'mAP {figures["mAP"]:.3f}, report: {page}')


def facts(config):
    """Settings and versions for the report."""
    model = config.model
    adder = model.backbone.get('conv_cfg', 'class default')
    versions = ', '.join(
        f'{package.__name__} {package.__version__}' for package in
        (mmadder, torch, mmcv, mmengine, mmdet, mmpretrain))
    return [
        ('detector', model.type),
        ('backbone', f'{model.backbone.type}, {adder}'),
        ('neck', model.neck.type),
        ('optimizer', dict(config.optim_wrapper.optimizer)),
        ('epochs', config.train_cfg.get('max_epochs')),
        ('batch', config.train_dataloader.batch_size),
        ('seed', config.get('randomness', {}).get('seed')),
        ('versions', f'Python {platform.python_version()}, {versions}')]


if __name__ == '__main__':
    with cli.short_messages('Interrupted: the report is not whole.'):
        main()
