"""Medians of interleaved rounds, and the memory that one call takes."""
import ctypes
import math
import statistics
import time
from collections.abc import Callable

LEAST_SECONDS = 0.02  # of a candidate in a round


def median_times(candidates: dict[str, Callable], rounds: int,
                 most: float = 4.,
                 synchronize: Callable | None = None) -> dict[str, float]:
    """Median seconds of each callable, all of them run in turn.

    A round runs each candidate for at least LEAST_SECONDS, so drift of the
    machine meets all of them alike. A slow one sits out once it has had
    three rounds and `most` seconds.

    Args:
        candidates: without arguments.
        rounds: at most.
        most: seconds of a slow candidate.
        synchronize: waits for what a candidate has started, on devices that
            run behind.
    """

    def seconds(run, count=1):
        start = time.perf_counter()
        for _ in range(count):
            run()
        if synchronize:
            synchronize()
        return (time.perf_counter() - start) / count

    repeats, turns = {}, {}
    for name, run in candidates.items():
        first = seconds(run)  # also what is set up once
        taken = first if first > most / 3 else seconds(run)
        repeats[name] = max(1, math.ceil(LEAST_SECONDS / taken))
        turns[name] = min(rounds, max(3, int(most / taken)))
    times = {name: [] for name in candidates}
    for turn in range(rounds):
        for name, run in candidates.items():
            if turn < turns[name]:
                times[name].append(seconds(run, repeats[name]))
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_memory(call: Callable) -> int:
    """Bytes that a call needs at its peak, its result included (Linux).

    What earlier calls have freed is given back to the system before, so it
    counts again; what they keep, such as a library's prepared code, does not.
    """
    call()
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # the peak starts from now
    before = _memory('VmRSS')
    call()
    return _memory('VmHWM') - before


def _memory(name):
    with open('/proc/self/status') as file:
        for line in file:
            if line.startswith(name):
                return 1024 * int(line.split()[1])
    raise RuntimeError(f'/proc/self/status has no {name}')
