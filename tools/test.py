"""Evaluate a checkpoint of any mmadder, MMPretrain or MMDetection config.

    python tools/test.py CONFIG CHECKPOINT --data-root DIR

CHECKPOINT may be a file of tools/export_onnx.py, which ONNX Runtime runs, or
of tools/export_integer.py, which our kernels run.
Importing mmadder registers its names for configs that do not import it.
"""

from mmengine.config import ConfigDict
from mmengine.registry import METRICS

from mmadder import cli
from mmadder.errors import InputError
from mmadder.export import (
    IntegerPredictor,
    OnnxPredictor,
    is_integer,
    is_onnx,
)
from mmadder.files import require_file
from mmadder.inference import empty_quantized, fuse_adder_bn, is_quantized
from mmadder.models import unwrap_model


def parse_args():
    parser = cli.make_parser('Evaluate a model')
    parser.add_argument('checkpoint', help='checkpoint file, or file of '
                        'tools/export_onnx.py or tools/export_integer.py')
    parser.add_argument('--out', metavar='FILE.pkl',
                        help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true',
                        help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures with predictions '
                        '(MMDetection: below WORK_DIR/TIMESTAMP)')
    parser.add_argument('--wait-time', type=float, default=2,
                        help='seconds each window stays')
    parser.add_argument('--fuse', action='store_true', help='fuse adders '
                        'with their batch norms, shortcuts and ReLUs first')
    parser.add_argument('--tta', action='store_true', help='use tta_model '
                        'and tta_pipeline of the config')
    return parser.parse_args()


def main():
    args = parse_args()
    require_file(args.checkpoint, 'checkpoint')
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out {args.out}: expected a name that ends with '
                         '.pkl or .pickle')
    cfg = cli.runner_config(args, ('test_dataloader', ))
    predictor = (OnnxPredictor if is_onnx(args.checkpoint) else
                 IntegerPredictor if is_integer(args.checkpoint) else None)
    if predictor and (args.fuse or args.tta):
        raise InputError('--fuse and --tta change a model of PyTorch, and '
                         f'{args.checkpoint} is none: leave them out')
    cfg.load_from = None if predictor else args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    if args.tta:
        use_tta(cfg)
    runner = cli.build_runner(cfg)
    if predictor:
        runner.model = predictor(unwrap_model(runner.model),
                                 args.checkpoint)
        runner.model.require_classes(runner.test_dataloader.dataset)
    elif is_quantized(args.checkpoint):
        runner.model = empty_quantized(runner.model)
    elif args.fuse:
        runner.call_hook('before_run')
        runner.load_or_resume()
        runner.model = fuse_adder_bn(runner.model.eval())
    if args.out:
        is_detection = cfg.get('default_scope') == 'mmdet'
        runner.test_evaluator.metrics.append(METRICS.build(dict(
            type='mmdet.DumpDetResults' if is_detection else 'DumpResults',
            out_file_path=args.out)))
    runner.test()


def draw_predictions(cfg, args):
    """Switch on the visualization hook, whose options have two spellings."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise InputError('--show and --show-dir need a visualization hook '
                         'in default_hooks of the config')
    if cfg.get('default_scope') == 'mmdet':
        hook.update(draw=True, test_out_dir=args.show_dir)
    else:
        hook.update(enable=True, out_dir=args.show_dir)
    hook.update(show=args.show, wait_time=args.wait_time)


def use_tta(cfg):
    """Wrap the model and replace the innermost dataset's pipeline."""
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise InputError('--tta needs tta_model and tta_pipeline in the '
                         'config')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was evaluated.'):
        main()
