"""Write the golden vectors of docs/integer_vectors from the NumPy oracle.

    PYTHONPATH=tests python tests/golden_vectors.py

Networks with every kind of step and, of each, all maps of a picture. They
stay as they are: a changed byte would be another format.
"""
from pathlib import Path

import numpy as np
import random_networks as networks

from mmadder.integer import integer_reference

FOLDER = Path(__file__).parents[1] / 'docs/integer_vectors'
NETWORKS = dict(
    classifier=lambda: networks.classifier(center=False),
    centered=lambda: networks.classifier(1),
    four_bits=lambda: networks.classifier(2, highest=15),
    shift_only=networks.shift_only,
    pyramid=lambda: networks.pyramid(widths=(12, 30), channels=9),
    shared_weight=networks.one_weight,
    lopsided=networks.lopsided,
    extremes=networks.extremes)


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, make in NETWORKS.items():
        network = make()
        channels = network.maps[network.image]['channels']
        images = networks.pictures(1, channels=channels)[:1]
        network.save(FOLDER / f'{name}.npz')
        np.savez_compressed(FOLDER / f'{name}_maps.npz',
                            **integer_reference.run(network, images))


if __name__ == '__main__':
    main()
