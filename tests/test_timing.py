"""Medians and memory of calls whose time and memory are known."""
import sys
import time

import pytest
import torch

from mmadder import timing


def test_median_times_gives_each_its_own():
    times = timing.median_times(
        dict(short=lambda: time.sleep(.002), long=lambda: time.sleep(.02)),
        rounds=3)
    assert .002 <= times['short'] < times['long']
    assert times['long'] >= .02


def test_slow_candidates_sit_out():
    runs = []
    timing.median_times(
        dict(slow=lambda: runs.append(time.sleep(.02))), rounds=9, most=.03)
    assert len(runs) == 4  # once before, three rounds


def test_what_runs_behind_is_waited_for():
    """Calls return at once; their work is done while one waits."""
    pending = []

    def wait():
        while pending:
            time.sleep(pending.pop())

    times = timing.median_times(
        dict(behind=lambda: pending.append(.02)), rounds=3, synchronize=wait)
    assert times['behind'] >= .02


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_peak_memory_counts_what_is_freed():
    def call():
        kept = torch.ones(8, 2**18)  # 8 MiB
        return (kept + 1)[:1].clone()

    assert 15 < timing.peak_memory(call) / 2**20 < 24
