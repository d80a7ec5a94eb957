"""Draw what a detector finds in pictures, or what a classifier takes them for.

    python tools/image_demo.py IMAGE CONFIG CHECKPOINT --out DIR

IMAGE may be a folder of pictures; those that cannot be read are named at the
end. The data of the config are not needed.
"""
import argparse
from pathlib import Path

from tqdm import tqdm

from mmadder import cli
from mmadder.analysis.predictor import SUFFIXES, find_pictures
from mmadder.apis import load
from mmadder.errors import InputError


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', help='picture, or folder of pictures')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of this config')
    parser.add_argument('--out', default='outputs', metavar='DIR',
                        help='folder for the pictures, default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='least score of a box, default: %(default)s')
    cli.add_device_option(parser)
    cli.add_cfg_options(parser)
    cli.add_trust_option(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cli.read_trust(args)
    pictures = find_pictures(args.image)
    out = Path(args.out)
    if out.resolve() == pictures[0].parent.resolve():
        raise InputError(f'--out {out} is the folder of the pictures, which '
                         'would be overwritten; choose another')
    config = cli.load_config(args.config, cfg_options=args.cfg_options)
    demo = load(config, args.checkpoint, device=args.device, fuse=False)
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for path in tqdm(pictures, unit='picture', disable=len(pictures) == 1):
        target = out / path.name
        if path.suffix.lower() not in SUFFIXES:
            target = out / f'{path.name}.png'
        try:
            seen = demo.draw(path, target, args.score_thr)
        except InputError as error:
            failed.append(str(error))
        else:
            tqdm.write(f'{target}: {seen}')
    if failed:
        raise InputError('\n  '.join([
            f'{len(failed)} of {len(pictures)} pictures were not drawn:',
            *failed]))


if __name__ == '__main__':
    with cli.short_messages('Interrupted: pictures drawn so far are kept.'):
        main()
