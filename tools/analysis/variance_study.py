"""Compare Eq. 4-9 and 13-16 with simulation and with trained networks.

    python tools/analysis/variance_study.py
    python tools/analysis/variance_study.py WORK_DIR [--epoch N]
    python tools/analysis/variance_study.py CONFIG CHECKPOINT --data-root DIR

Without arguments: drawn inputs and weights, by default with the variances
that the paper reports. A work directory must have a recording (--record of
tools/train.py). A checkpoint is measured on one batch of test images, and its
layers' inputs are disturbed, too.
"""
import argparse
from pathlib import Path

from mmadder import cli
from mmadder.analysis.testing import test_batch
from mmadder.analysis.variance_study import (
    measure_disturbance,
    simulate_layer,
    study_model,
    study_record,
    table_of_disturbances,
    table_of_layers,
    taps_of_run,
)
from mmadder.checkpoints.state_dict import load_network
from mmadder.errors import InputError
from mmadder.files import require_file, write_json
from mmadder.models import build_model
from mmadder.reporting.tables import print_table
from mmadder.runs.recording import read_recording

NOTES = '''\
/ formula: Eq. 4 and 5 for a rectified normal x with the second moment of the
measured one; Eq. 7, a lower bound for Laplace x - W; Eq. 8 ("-": negative, it
bounds nothing), for the variance over all channels; n Var(x), an upper bound
of the variance in one channel if taps are independent. Batch norm sees one
channel: Eq. 8 is not its variance, whatever the size of the weights.'''


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('network', nargs='*', metavar='WORK_DIR | CONFIG '
                        'CHECKPOINT')
    parser.add_argument('--epoch', type=int, help='of a recording, default: '
                        'the last')
    parser.add_argument('--taps', type=int, default=576,
                        help='of a simulation: n, default 576')
    parser.add_argument('--input-var', type=float, default=0.38,
                        help='variance before the ReLU, sigma^2')
    parser.add_argument('--weight-mean', type=float, default=0.32)
    parser.add_argument('--weight-var', type=float, default=88.47,
                        help='2 b^2')
    parser.add_argument('--delta', type=float, default=0.1,
                        help='deviation of the disturbance, in units of the '
                        "simulated sigma, or of the input's")
    parser.add_argument('--images', type=int, default=64,
                        help='of the batch through a checkpoint')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', metavar='FILE', help='write all numbers')
    cli.add_config_options(parser)
    cli.add_trust_option(parser)
    args = parser.parse_args()
    if len(args.network) > 2:
        parser.error('expected nothing, WORK_DIR, or CONFIG CHECKPOINT')
    return args


def main():
    args = parse_args()
    cli.read_trust(args)
    if not args.network:
        results = simulate(args)
    elif len(args.network) == 1:
        results = dict(layers=study_run(args))
        print_layers(results['layers'])
    else:
        results = study_checkpoint(args)
        print_layers(results['layers'])
        print_disturbance(results['disturbance'])
    if args.json:
        write_json(args.json, results)
        print(f'written: {args.json}')


def simulate(args):
    if min(args.taps, args.input_var, args.weight_var) <= 0:
        raise InputError('--taps, --input-var and --weight-var must be '
                         'positive')
    sigma = args.input_var**0.5
    rows = simulate_layer(
        args.taps, sigma, args.weight_mean, (args.weight_var / 2)**0.5,
        delta_sigma=args.delta * sigma, seed=args.seed)
    print_table(('simulation', 'formula', 'measured', 'note'),
                [row.values() for row in rows])
    return dict(simulation=rows, taps=args.taps, sigma=sigma,
                weight_mean=args.weight_mean, weight_var=args.weight_var)


def study_run(args):
    recording = read_recording(args.network[0])
    record = recording.record_at(args.epoch)
    step = record['epoch' if recording.unit == 'epoch' else 'iter']
    print(f'{args.network[0]}, {recording.unit} {step}')
    return study_record(record, taps_of_run(recording))


def study_checkpoint(args):
    config, checkpoint = args.network
    require_file(checkpoint, 'checkpoint')
    cfg = cli.load_config(
        config, ('test_dataloader', ), cfg_options=args.cfg_options,
        data_root=args.data_root)
    model = build_model(cfg)
    load_network(model, checkpoint)
    model.eval()
    batch = test_batch(cfg, args.images, args.seed)
    print(f'{Path(checkpoint).name}, {args.images} test images')

    def run():
        model.test_step(batch)

    return dict(
        layers=study_model(model, run),
        disturbance=measure_disturbance(model, run, args.delta, args.seed))


def print_layers(layers):
    print_table(*table_of_layers(layers))
    print(NOTES)


def print_disturbance(layers):
    print('\nInput of each layer disturbed at random, its output:')
    print_table(*table_of_disturbances(layers))
    print('Eq. 14 is for a delta with the sign of x - W in every tap; n s^2 '
          'for a random one that\nis small beside x - W. Eq. 15 is Eq. 14 '
          "over the channel's variance, here.")


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
