"""Memory that maps share, and multiplications that are left."""
import itertools

import numpy as np
from random_networks import classifier, pyramid, shift_only

from mmadder.integer.costs import (
    map_memory,
    multiplications,
    needed_steps,
    place_maps,
)


def test_maps_share_memory():
    lives = dict(a=(0, 2), b=(1, 2), c=(2, 3), d=(3, 4), e=(4, 4))
    sizes = dict(a=100, b=50, c=30, d=120, e=10)
    places, total = place_maps(sizes, lives)
    for one, other in itertools.combinations(lives, 2):
        together = lives[one][0] <= lives[other][1] and \
            lives[other][0] <= lives[one][1]
        apart = places[one] + sizes[one] <= places[other] or \
            places[other] + sizes[other] <= places[one]
        assert apart or not together
    assert total == 180  # a, b and c; no order does with less
    assert place_maps({}, {}) == ({}, 0)


def test_steps_for_nothing_need_nothing():
    network = pyramid()
    shapes = {name: (entry['channels'], *network.sizes((31, 45))[name])
              for name, entry in network.maps.items()}
    assert needed_steps(network) == network.steps
    name = network.steps[0]['output']
    network.outputs = dict(first=name)
    assert needed_steps(network) == network.steps[:1]
    assert map_memory(network, shapes) == ({name: 0}, np.prod(shapes[name]))


def test_multiplications_by_hand():
    """A multiplier, the mean over 10 or 24 filters, and a shortcut."""
    found = {step['output']: multiplications(network, step)
             for network in [classifier()] for step in network.steps
             if step['kind'] in ('adder', 'convolution')}
    assert list(found.values()) == [10, 20, 30, 48, 48, 72, 0]
    network = shift_only(width=16)
    assert [multiplications(network, step) for step in network.steps
            if step['kind'] == 'adder'] == [0] * 5
