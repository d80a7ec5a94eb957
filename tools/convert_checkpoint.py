"""Convert a checkpoint to the model of a config, and check that it agrees.

    python tools/convert_checkpoint.py CONFIG CHECKPOINT OUT

CHECKPOINT is of AdderNet's published code, or has adders of another weight
norm than CONFIG: ann (none), ws (weight standardization), awn (adaptive
weight normalization). Logits, or a detector's features, must agree to 1e-5,
or nothing is written. Where tensors had to be rounded to float32, they may
deviate as much as the source does when it is computed in float32.
"""
import argparse
import os.path as osp

from mmadder import cli
from mmadder.checkpoints import SOURCES, convert_checkpoint, recorded_config
from mmadder.checkpoints.state_dict import get_state_dict, read_checkpoint
from mmadder.files import require_file, save_checkpoint
from mmadder.models import build_model


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the target')
    parser.add_argument('checkpoint', help='file to convert')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--source', choices=SOURCES, help='what CHECKPOINT '
                        'is; needed for ann and ws, whose keys are equal, '
                        'if it carries no config')
    cli.add_cfg_options(parser)
    cli.add_trust_option(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cli.read_trust(args)
    require_file(args.checkpoint, 'checkpoint')
    config = cli.load_config(args.config, cfg_options=args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint)
    state_dict = get_state_dict(checkpoint, args.checkpoint)
    recorded = recorded_config(checkpoint, config)
    converted, deviation, rounding = convert_checkpoint(
        state_dict, build_model(config), args.source,
        recorded and build_model(recorded))
    meta = dict(
        converted_from=osp.basename(args.checkpoint),
        cfg=config.pretty_text)  # tells ann, ws and cnn apart
    if 'dataset_meta' in checkpoint.get('meta', ()):
        meta['dataset_meta'] = checkpoint['meta']['dataset_meta']
    save_checkpoint(dict(meta=meta, state_dict=converted), args.out)
    print(f'{args.out}: {len(converted)} tensors; outputs deviate by '
          f'{deviation:.1e} at most, with rounded tensors by {rounding:.1e}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
