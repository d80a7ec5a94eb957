"""Fill the measured columns of docs/scaling.md by what `make test-gpu` found.

Beside the calculated seconds of an epoch stand those of the same adder layers,
float32, forward and backward, and those of training the whole network with
AWN, float32 without TF32 and without loading data. Cells of cards and networks
that were not measured say so; a calculated value is never put there.

    python tools/analysis/fill_scaling.py
"""
import argparse
import json
import re
from pathlib import Path

from mmadder import cli
from mmadder.benchmark import cuda_time, shapes
from mmadder.errors import InputError
from mmadder.files import require_file, whole_file

ROOT = Path(__file__).resolve().parents[2]
EMPTY = 'not measured'
# Network of the benchmark: beginning of its row, images of an epoch.
ROWS = {'ResNet-18': ('| ResNet-18, ImageNet', 1_281_167),
        'Faster R-CNN R18-FPN': ('| Faster R-CNN R18-FPN, VOC', 16_551)}
CARDS = [gpu.name.split()[0] for gpu in cuda_time.GPUS]
BATCH = 32  # of the timed layers


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--measurements', default=ROOT / 'docs' /
                        'measurements' / 'gpu', metavar='FOLDER')
    parser.add_argument('--page', default=ROOT / 'docs' / 'scaling.md',
                        metavar='FILE')
    return parser.parse_args()


def layer_seconds(report, network, images):
    """Seconds of an epoch in the adder layers, or None."""
    if network != 'ResNet-18':  # the detector's backbone is not timed
        return None
    times = report['steps'].get('operators', {}).get('figures', {}).get(
        'without TF32', {})
    try:
        batch = sum(times[direction][str(layer)]['adder']
                    for direction in ('forward', 'backward')
                    for layer in shapes.resnet18(BATCH))
    except KeyError:  # left out, or the step failed
        return None
    return batch / BATCH * images


def network_seconds(report, network, images):
    """Seconds of an epoch of training the whole network, or None."""
    for row in report['steps'].get('networks', {}).get('figures', ()):
        if (row['network'], row['layers'], row['precision']) == (
                network, 'AWN', 'float32'):
            return images / row['train']
    return None


def read_cells(folder):
    """{(network, card): [cell of the layers, cell of the network]}."""
    cells = {}
    for path in sorted(Path(folder).glob('*.json')):
        report = json.loads(path.read_text())
        name = report['machine'].get('gpu', '')  # NVIDIA A100-SXM4-80GB
        for card in CARDS:
            if card not in re.findall(r'\w+', name):
                continue
            for network, (_, images) in ROWS.items():
                cells[network, card] = [
                    EMPTY if seconds is None else f'{seconds:,.0f}'
                    for seconds in (layer_seconds(report, network, images),
                                    network_seconds(report, network, images))]
    return cells


def fill(text, cells):
    """Return a page with the last two cells of its rows filled anew."""
    lines, network, filled = text.splitlines(), None, 0
    for i, line in enumerate(lines):
        heads = [name for name, (head, _) in ROWS.items()
                 if line.startswith(head) and 'images' in line]
        network = heads[0] if heads else network if line[:1] == '|' else None
        card = line.split(' ')[1] if line.startswith('| ') else None
        if network and card in CARDS:
            row = line.split('|')[1:-3]
            new = cells.get((network, card), [EMPTY] * 2)
            lines[i] = '|'.join(['', *row, *(f' {cell} ' for cell in new), ''])
            filled += 1
    return '\n'.join(lines) + '\n', filled


def main():
    args = parse_args()
    require_file(args.page, '--page')
    text, filled = fill(Path(args.page).read_text(),
                        read_cells(args.measurements))
    if filled != len(ROWS) * len(CARDS):
        raise InputError(f'{args.page} has {filled} of the '
                         f'{len(ROWS) * len(CARDS)} rows to fill')
    with whole_file(args.page) as partial:
        partial.write_text(text)
    print(args.page)


if __name__ == '__main__':
    with cli.short_messages('Interrupted: nothing was written.'):
        main()
