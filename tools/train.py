"""Train a model of any mmadder, MMPretrain or MMDetection config.

    python tools/train.py CONFIG --data-root DIR

Importing mmadder registers its names for configs that do not import it.
"""

from mmengine.device import get_device
from mmengine.registry import OPTIMIZERS

from mmadder import cli
from mmadder.config_nodes import nodes, type_name
from mmadder.errors import InputError
from mmadder.files import require_file
from mmadder.text import nearest


def parse_args():
    parser = cli.make_parser('Train a model')
    parser.add_argument('--resume', nargs='?', const='auto',
                        metavar='CHECKPOINT', help='go on from CHECKPOINT, '
                        'or from the last one in the work directory')
    parser.add_argument('--amp', action='store_true',
                        help='mixed precision (GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the batch size')
    parser.add_argument('--no-validate', action='store_true',
                        help='do not evaluate during training')
    parser.add_argument('--record', nargs='?', const=1, type=int,
                        metavar='EPOCHS', help='record weights, features and '
                        'gradients of all layers every EPOCHS epochs (1), '
                        'and the validation loss of a classifier')
    parser.add_argument('--precise-bn', nargs='?', const=1000, type=int,
                        metavar='PICTURES', help='measure batch norms anew '
                        'on PICTURES of the training set (1000) before each '
                        'validation and checkpoint')
    parser.add_argument('--seed', type=int, help='seed of all generators')
    parser.add_argument('--deterministic', action='store_true',
                        help='use deterministic algorithms only')
    return parser.parse_args()


def main():
    args = parse_args()
    validation = () if args.no_validate else ('val_dataloader', )
    cfg = cli.runner_config(args, ('train_dataloader', *validation))
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    require_held_out(cfg)
    set_randomness(cfg, args)
    if args.record is not None:
        record(cfg, args.record)
    if args.precise_bn is not None:
        measure_norms(cfg, args.precise_bn)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    if args.resume:
        cli.resume(cfg, args.resume)
    elif cfg.get('load_from'):
        require_file(cfg.load_from, 'load_from')
    runner = cli.build_runner(cfg)
    require_optimizer(cfg)
    runner.train()


def require_held_out(cfg):
    """Refuse to validate with pictures that are trained on."""
    train, val = (
        {(type_name(node), node.get('data_root'), node.get('split'))
         for _, node in nodes(cfg.get(f'{name}_dataloader'))}
        for name in ('train', 'val'))
    for kind, root, split in train:
        if split == 'trainval' and (kind, root, 'val') in val:
            raise InputError(
                f'trainval has the pictures of the validation split, which '
                f'would say nothing of {kind} then: add --no-validate, or '
                'train with split=train')


def require_optimizer(cfg):
    """MMEngine's word for it is "None is not a callable object"."""
    wrapper = cfg.get('optim_wrapper') or {}
    name = (wrapper.get('optimizer') or {}).get('type')
    # Of the scope that the runner has set, and its parents.
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if not isinstance(name, str) or registry.get(name) is not None:
            return
        known = {*registry.module_dict, *OPTIMIZERS.module_dict}
    raise InputError('optim_wrapper.optimizer.type: there is no optimizer '
                     f'{name!r}{nearest(name, known)}')


def set_randomness(cfg, args):
    cfg.setdefault('randomness', dict(seed=None))
    if args.seed is not None:
        cfg.randomness.seed = args.seed
    if args.deterministic:
        cfg.randomness.deterministic = True


def record(cfg, interval):
    cfg.custom_hooks.append(dict(type='StatisticsHook', interval=interval))
    metrics = cfg.get('val_evaluator') or []
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) \
        else [metrics]
    types = [type_name(metric) for metric in metrics]
    if 'Accuracy' in types and 'CrossEntropyMetric' not in types:
        cfg.val_evaluator = metrics + [dict(type='CrossEntropyMetric')]


def measure_norms(cfg, pictures):
    name = 'PreciseBatchNormHook'
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if type_name(hook) != name
    ] + [dict(type=name, num_samples=pictures)]


def use_amp(cfg):
    if get_device() == 'cpu':
        raise InputError('--amp needs a GPU, and none is there')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def scale_learning_rate(cfg):
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise InputError('--auto-scale-lr needs auto_scale_lr='
                         'dict(base_batch_size=...) in the config')
    cfg.auto_scale_lr.enable = True


if __name__ == '__main__':
    with cli.short_messages('Interrupted. The same command with --resume goes '
                            'on from the last checkpoint.'):
        main()
