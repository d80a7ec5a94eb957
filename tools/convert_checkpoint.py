"""Convert a checkpoint to the model of a config, and check that it agrees.

    python tools/convert_checkpoint.py CONFIG CHECKPOINT OUT

CHECKPOINT is of AdderNet's published code, or has adders of another weight
norm than CONFIG: ann (none), ws (weight standardization), awn (adaptive
weight normalization). Logits, or a detector's features, must agree to 1e-5,
or nothing is written. Where tensors had to be rounded to float32, they may
deviate ten times as much as the source does when it is computed in float32.

With --source cnn, CHECKPOINT is of a convolutional network, such as a
detector of MMDetection, and OUT where its way to adders begins.
"""
import argparse
import os.path as osp

from mmadder import cli
from mmadder.analysis.testing import training_batches
from mmadder.checkpoints import (
    SOURCES,
    convert_checkpoint,
    recorded_config,
    require_connections,
)
from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.state_dict import get_state_dict, read_checkpoint
from mmadder.errors import InputError
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
                        'is; needed for cnn, and where keys are equal (ann, '
                        'ws; centered or not) if it carries no config')
    parser.add_argument('--calibrate', type=int, default=0, metavar='N',
                        help='with cnn: norms that CHECKPOINT does not have '
                        'begin with the statistics of N training batches, '
                        'not of noise')
    cli.add_config_options(parser)
    cli.add_trust_option(parser)
    args = parser.parse_args()
    if args.calibrate < 0:
        parser.error(f'--calibrate must be at least 0, got {args.calibrate}')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    require_file(args.checkpoint, 'checkpoint')
    is_cnn = args.source == 'cnn'
    if args.calibrate and not is_cnn:
        raise InputError('--calibrate is for --source cnn: adders bring all '
                         'their norms along')
    config = cli.load_config(
        args.config, ('train_dataloader', )[:args.calibrate],
        cfg_options=args.cfg_options, data_root=args.data_root)
    checkpoint = read_checkpoint(args.checkpoint)
    state_dict = get_state_dict(checkpoint, args.checkpoint)
    if is_cnn:
        require_connections(checkpoint, config)
    recorded = None if is_cnn else recorded_config(checkpoint, config)
    model = build_model(config)
    converted, deviation, rounding = convert_checkpoint(
        state_dict, model, args.source, recorded and build_model(recorded),
        training_pictures(model, config, args.calibrate))
    meta = dict(
        converted_from=osp.basename(args.checkpoint),
        cfg=config.pretty_text)  # tells ann, ws and cnn apart
    is_whole = model.state_dict().keys() <= converted.keys()
    if is_whole and trained_classes(checkpoint):
        meta['dataset_meta'] = checkpoint['meta'].get('dataset_meta') \
            or dict(classes=trained_classes(checkpoint))
    save_checkpoint(dict(meta=meta, state_dict=converted), args.out)
    print(f'{args.out}: {len(converted)} tensors; outputs deviate by '
          f'{deviation:.1e} at most, with rounded tensors by {rounding:.1e}')


def training_pictures(model, config, count):
    """Batches as the model sees them, or None."""
    if not count:
        return None
    return (model.data_preprocessor(batch, True)['inputs']
            for batch in training_batches(config, count))


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
