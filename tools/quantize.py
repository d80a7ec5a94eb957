"""Quantize the adders of a trained model to 8 bits.

    python tools/quantize.py CONFIG CHECKPOINT --out FILE.pth
    python tools/test.py CONFIG FILE.pth

The ranges of values are taken from batches of the validation set.
"""
import os.path as osp

from mmadder import cli
from mmadder.errors import InputError
from mmadder.files import require_file, require_writable
from mmadder.inference import is_quantized, quantize, save_quantized


def parse_args():
    parser = cli.make_parser('Quantize the adders of a model to 8 bits')
    parser.add_argument('checkpoint', help='checkpoint of the float model')
    parser.add_argument('--out', required=True, metavar='FILE.pth',
                        help='checkpoint to write')
    parser.add_argument('--batches', type=int, default=10,
                        help='validation batches to calibrate with, default: '
                        '%(default)s')
    args = parser.parse_args()
    if args.batches < 1:
        parser.error(f'--batches must be at least 1, got {args.batches}')
    return args


def main():
    args = parse_args()
    require_file(args.checkpoint, 'checkpoint')
    require_writable(args.out)
    cfg = cli.runner_config(args, ('val_dataloader', ))
    if is_quantized(args.checkpoint):
        raise InputError(f'{args.checkpoint} is quantized already')
    cfg.load_from, cfg.resume = args.checkpoint, False
    runner = cli.build_runner(cfg)
    loader = runner.build_dataloader(cfg.val_dataloader)
    runner.call_hook('before_run')
    runner.load_or_resume()
    meta = dict(dataset_meta=dict(loader.dataset.metainfo))
    save_quantized(
        quantize(runner.model.eval(), loader, args.batches), args.out, meta)
    before, after = (osp.getsize(path) / 2**20
                     for path in (args.checkpoint, args.out))
    print(f'{args.out}: {after:.1f} MiB ({args.checkpoint}: {before:.1f} '
          f'MiB)\nEvaluate it with: python tools/test.py {args.config} '
          f'{args.out}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
