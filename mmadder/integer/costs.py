"""What a network of integers needs: memory of its maps, multiplications."""
import math

from .network import IntegerNetwork


def needed_steps(network: IntegerNetwork) -> list[dict]:
    """The steps that an output depends on, in order."""
    wanted, found = set(network.outputs.values()), []
    for step in reversed(network.steps):
        if step['output'] in wanted:
            wanted.update(IntegerNetwork.sources(step))
            found.insert(0, step)
    return found


def map_memory(network: IntegerNetwork,
               shapes: dict[str, tuple[int, int, int]]
               ) -> tuple[dict[str, int], int]:
    """Where the maps of codes lie in one piece of memory.

    A map's place is free again behind its last reader. The picture and
    outputs of type int32 have memory of their own.

    Args:
        network: any integer network.
        shapes: {map: (C, H, W)}.

    Returns:
        {map: offset} and the bytes in all.
    """
    sizes, lives = {}, {}
    for i, step in enumerate(needed_steps(network)):
        name = step['output']
        if network.maps[name]['type'] == 'uint8':
            sizes[name] = math.prod(shapes[name])
            lives[name] = i, i
        for source in IntegerNetwork.sources(step):
            if source in lives:
                lives[source] = lives[source][0], i
    return place_maps(sizes, lives)


def place_maps(sizes: dict[str, int], lives: dict[str, tuple[int, int]]
               ) -> tuple[dict[str, int], int]:
    """Where maps lie that share one piece of memory.

    Args:
        sizes: {map: bytes}.
        lives: {map: (step that writes it, last step that reads it)}.

    Returns:
        {map: offset} and the bytes in all. Large maps are placed first, each
        as low as maps that live at the same time leave room.
    """
    places = {}
    for name in sorted(sizes, key=sizes.get, reverse=True):
        first, last = lives[name]
        offset = 0
        for other in sorted(places, key=places.get):
            begin, end = lives[other]
            if begin <= last and first <= end and \
                    places[other] < offset + sizes[name]:
                offset = max(offset, places[other] + sizes[other])
        places[name] = offset
    return places, max((places[name] + sizes[name] for name in sizes),
                       default=0)


def multiplications(network: IntegerNetwork, step: dict) -> int:
    """Multiplications of int32 behind an adder's or a convolution's sums.

    Returns:
        For each position: of centering, multipliers and residual, where they
        are no shifts, that is, neither 0 nor powers of two.
    """
    if network.maps[step['output']]['type'] == 'int32':
        return 0
    multiplier = network.array(step, 'multiplier').tolist()
    factors = [multiplier, [step.get('residual_multiplier', 0)]]
    if step.get('center'):
        factors.append([len(multiplier)])
    return len(multiplier) * sum(
        not all(map(is_power, group)) for group in factors)


def is_power(factor: int) -> bool:
    """Whether it is 0, or a power of two with any sign."""
    return abs(factor) & (abs(factor) - 1) == 0 if factor else True
