"""Accuracy of a classifier, or mAP of a detector, under attack.

    python tools/robustness.py CONFIG CHECKPOINT --json FILE
    python tools/robustness.py --merge A.json B.json --out DIR

The first gives a row of Table 1 of "Towards Stable and Robust AdderNets" for
each mode of inference: eval (tracked statistics in batch norms), R (the
batch's mean), r (the batch's mean and variance) and, where asked for, max (the
batch's mean, the larger of both variances). With --json it goes on
where it was interrupted, and adds columns to those of an earlier call. The
second joins several networks into tables and figures.

A detector is attacked through its training loss on the annotated boxes; the
pixels of its pictures are changed after they are resized. --square,
--autoattack and --adaptive need the logits of a classifier.
"""
import argparse
import hashlib
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from mmadder import cli
from mmadder.checkpoints.state_dict import load_network
from mmadder.errors import InputError
from mmadder.files import require_file
from mmadder.models import build_model
from mmadder.robustness import (
    Attack,
    BudgetError,
    Column,
    DetectionEvaluation,
    Evaluation,
    Pictures,
    PixelClassifier,
    PixelDetector,
    adaptive_column,
    attacker_columns,
    corruption_columns,
    corruption_table,
    eps_sweep,
    load_pixels,
    markdown_table,
    neighbours_columns,
    recalibrate,
    steps_sweep,
    table_columns,
    unbounded_column,
    write_merged,
)
from mmadder.robustness.attacks import STEPS
from mmadder.robustness.columns import TABLE
from mmadder.robustness.corruptions import CORRUPTIONS
from mmadder.robustness.evaluation import MODES


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--json', metavar='FILE', help='results; an existing '
                        'file of the same run is continued')
    parser.add_argument('--name', help='of the network in tables, default: '
                        'name of the config')
    parser.add_argument('--modes', nargs='+', default=MODES[:3],
                        choices=MODES, help='default: eval R r')
    parser.add_argument('--images', type=int, help='test images: of a '
                        'classifier balanced and shuffled, default 1000; of '
                        'a detector drawn at random, default all')
    parser.add_argument('--batch-size', type=int, help='R and r depend on '
                        "it; default 100, of a detector its config's")
    parser.add_argument('--eps', default='8/255',
                        help='radius in pixels from 0 to 1, default 8/255')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--without-logit-bn', action='store_true',
                        help='R and r leave the norm of the logits alone')
    parser.add_argument('--recalibrate', type=int, default=0, metavar='N',
                        help='first estimate the tracked statistics anew '
                        'from N training images: for networks trained on '
                        'other images, such as uncompressed ones')
    parser.add_argument('--attacks', nargs='+', default=TABLE, choices=TABLE,
                        help='columns of Table 1 beside the clean one')
    parser.add_argument('--no-table', action='store_true',
                        help='leave out the six columns of Table 1, the '
                        'attackers that batch statistics do not mislead and '
                        'the check by an attack without bounds')
    parser.add_argument('--legacy-rfgsm', action='store_true',
                        help='add the RFGSM that breaks its budget')
    parser.add_argument('--square', action='store_true',
                        help='add Square, a black-box attack')
    parser.add_argument('--autoattack', action='store_true')
    parser.add_argument('--adaptive', type=int, nargs='?', metavar='STEPS',
                        const=STEPS['APGD'], help='add APGD that takes batch '
                        'statistics as constants: cross entropy and DLR, two '
                        'restarts, the worst per image; for modes of batch '
                        f'statistics what counts; default: {STEPS["APGD"]}')
    parser.add_argument('--neighbours', type=float, nargs='+', default=[],
                        metavar='SHARE', help='add, for modes of batch '
                        'statistics, PGD on a share of each batch so that '
                        'the others are misclassified; and adversarial '
                        'images in batches of which a share is clean')
    parser.add_argument('--corruptions', nargs='*', metavar='NAME',
                        help='add common corruptions at five severities: '
                        'those named, of imagecorruptions; default: '
                        + ' '.join(CORRUPTIONS))
    parser.add_argument('--strong-images', type=int, default=200,
                        help='images for the last four attacks, in whole '
                        'batches')
    parser.add_argument('--queries', type=int, help='of Square')
    parser.add_argument('--transfer-from', nargs=2, metavar=(
        'CONFIG', 'CHECKPOINT'), help='add PGD on another network')
    parser.add_argument('--sweep', nargs='+', choices=['eps', 'steps'],
                        default=[], help='add PGD with eps from 0.01 to 0.1, '
                        'or with 1 to 50 steps')
    parser.add_argument('--sweep-images', type=int, help='images for sweeps '
                        'and corruptions, default: all')
    cli.add_device_option(parser)
    cli.add_config_options(parser)
    cli.add_trust_option(parser)
    parser.add_argument('--merge', nargs='+', metavar='FILE')
    parser.add_argument('--out', help='folder for --merge')
    args = parser.parse_args()
    if bool(args.merge) != bool(args.out):
        parser.error('--merge and --out belong together')
    if not args.merge and not args.checkpoint:
        parser.error('CONFIG and CHECKPOINT are needed, or --merge')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    if args.merge:
        table, written = write_merged(args.merge, args.out)
        print(table, *map(str, written), sep='\n')
        return
    eps = parse_eps(args.eps)
    columns = choose_columns(args, eps)
    evaluation = prepare(args)
    try:
        evaluation.run(args.modes, columns, progress_bar)
    except BudgetError as error:
        raise InputError(f'{error}. Its figure is void, and nothing after it '
                         'was measured; choose others with --attacks'
                         ) from error
    evaluation.review(args.modes, Attack('FGSM', eps))
    print(markdown_table([evaluation.results]))
    print(corruption_table([evaluation.results]))
    for mode, texts in evaluation.results['warnings'].items():
        for text in texts:
            print(f'{mode}: {text}')


def progress_bar(jobs):
    with tqdm(jobs, unit='column', disable=not jobs) as bar:
        for job in bar:
            bar.set_description(
                f'batch {job.batch} {job.mode} {job.column.label}')
            yield job


def parse_eps(text):
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError) as error:
        raise InputError(f'--eps {text}: expected a number such as 8/255 '
                         'or 0.03') from error


def choose_columns(args, eps):
    for name in ('strong_images', 'sweep_images'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f'--{name.replace("_", "-")} must be at least 1')
    columns = [] if args.no_table else [
        *table_columns(eps, args.attacks), *attacker_columns(eps),
        unbounded_column()]
    if args.legacy_rfgsm:
        columns.append(Column(Attack('LegacyRFGSM', eps)))
    if args.transfer_from:
        columns.append(Column(Attack('PGD', eps), 'transfer'))
    if args.square:
        columns.append(Column(Attack('Square', eps, steps=args.queries),
                              images=args.strong_images))
    if args.autoattack:
        columns.append(Column(Attack('AutoAttack', eps),
                              images=args.strong_images))
    if args.adaptive is not None:
        columns.append(adaptive_column(eps, args.adaptive,
                                       args.strong_images))
    columns += neighbours_columns(args.neighbours, eps, args.strong_images)
    if args.corruptions is not None:
        columns += [Column(), *corruption_columns(args.corruptions,
                                                  args.sweep_images)]
    if 'eps' in args.sweep:
        columns += eps_sweep(images=args.sweep_images)
    if 'steps' in args.sweep:
        columns += steps_sweep(eps=eps, images=args.sweep_images)
    if not columns:
        raise InputError('with --no-table nothing is left to measure: add '
                         '--sweep, --adaptive, --neighbours, --corruptions, '
                         '--square, --autoattack, --transfer-from or '
                         '--legacy-rfgsm')
    return columns


def prepare(args):
    """Return the evaluation of a classifier or a detector."""
    model, cfg, digest = load(args.config, args.checkpoint, args,
                              bool(args.recalibrate))
    facts = dict(name=args.name or Path(args.config).stem,
                 config=Path(args.config).name, checkpoint=digest,
                 recalibrated=args.recalibrate)
    source = None
    if args.transfer_from:
        source, _, facts['transfer_from'] = load(*args.transfer_from, args)
        if type(source) is not type(model):
            raise InputError('--transfer-from takes a classifier for a '
                             'classifier, a detector for a detector')
    common = dict(seed=args.seed, source=source, path=args.json, facts=facts,
                  include_logit_bn=not args.without_logit_bn)
    if isinstance(model, PixelDetector):
        if args.recalibrate:
            raise InputError('--recalibrate is for classifiers')
        pictures = Pictures(cfg, args.images, args.batch_size, args.seed)
        return DetectionEvaluation(
            model, pictures, cfg.test_evaluator, **common)
    if args.recalibrate:
        images, _ = load_pixels(
            cfg, model, args.recalibrate, args.seed, split='train')
        recalibrate(model, images)
    images, labels = load_pixels(
        cfg, model, default(args.images, 1000), args.seed)
    return Evaluation(
        model, images, labels, default(args.batch_size, 100), **common)


def default(value, otherwise):
    return otherwise if value is None else value


def load(config, checkpoint, args, train=False):
    """Return a model of pixels, its config and the checkpoint's hash."""
    require_file(checkpoint, 'checkpoint')
    cfg = cli.load_config(
        config, ('test_dataloader', 'train_dataloader')[:1 + train],
        cfg_options=args.cfg_options, data_root=args.data_root)
    model = build_model(cfg)
    load_network(model, checkpoint)
    model.to(args.device)
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:16]
    wrapper = PixelClassifier if hasattr(model, 'head') else PixelDetector
    return wrapper(model).eval().to(args.device), cfg, digest


if __name__ == '__main__':
    with cli.short_messages('Interrupted. The same command with --json goes '
                            'on from the last batch.'):
        main()
