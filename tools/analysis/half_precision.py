"""What half types would do to the outputs of a trained network's adders.

    python tools/analysis/half_precision.py CONFIG CHECKPOINT --data-root DIR
    python tools/analysis/half_precision.py CONFIG CHECKPOINT --data-root DIR \
        --evaluate

Prints, for each adder and a batch of test images, the noise that rounding its
output adds, in per cent of the deviation of a channel: what the batch norm
behind it sees. Raw outputs are sums of thousands of distances; centered ones
are rounded after the mean over the filters is off. --evaluate tests a
classifier in float32 and under autocast to both half types.
"""
import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from mmadder import cli
from mmadder.analysis import half_precision
from mmadder.analysis.testing import TestSet, test_batch
from mmadder.checkpoints.state_dict import load_network
from mmadder.errors import InputError
from mmadder.files import require_file
from mmadder.models import build_model
from mmadder.reporting.tables import print_table


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--images', type=int, default=64,
                        help='test images in the batch')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the choice of images')
    parser.add_argument('--evaluate', action='store_true',
                        help='test the network with all test images, too')
    cli.add_config_options(parser)
    cli.add_trust_option(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cli.read_trust(args)
    require_file(args.checkpoint, 'checkpoint')
    cfg = cli.load_config(
        args.config, ('test_dataloader', ), cfg_options=args.cfg_options,
        data_root=args.data_root)
    model = build_model(cfg)
    load_network(model, args.checkpoint)
    model.eval()
    batch = test_batch(cfg, args.images, args.seed)
    rows = half_precision.study_model(model, lambda: model.test_step(batch))
    if not rows:
        raise InputError(f'{args.config} has no adder layers')
    print(f'{Path(args.checkpoint).name}, {args.images} test images')
    print_table(*half_precision.table(rows))
    if args.evaluate:
        evaluate(cfg, model)


def evaluate(cfg, model):
    if not hasattr(model, 'head'):
        raise InputError('--evaluate is for classifiers: boxes of half types '
                         'are none that the NMS of a CPU takes')
    test_set, rows = TestSet(cfg), []
    for dtype in (torch.float32, *half_precision.HALF_TYPES):
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            metrics = test_set.evaluate(model, tqdm)
        rows.append((half_precision.name_of(dtype), *metrics.values()))
    print(f'\n{len(test_set)} test images, half types by autocast')
    print_table(('', *metrics), rows)


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
