"""Tables of figures that were not measured."""
from types import SimpleNamespace

from mmadder.benchmark import summary
from mmadder.benchmark.shapes import Layer

LAYER = Layer(1, 32, (8, 8), 32, 3)
RESULTS = {LAYER: dict(conv2d=1., max=1.25, faiss=5., exact=1.)}


def test_tables_show_ratios_to_conv2d():
    lines = summary.operator_table(RESULTS, ['forward', 'peers'])
    title, row, mean = lines[1:4]
    assert title.split() == [
        *'forward: conv2d forward / this conv2d ms exact max'.split()]
    assert row.split() == [*str(LAYER).split(), '1000.00', '1.00', '0.80']
    assert mean.split()[-2:] == ['1.00', '0.80']
    assert lines[6].split()[-2:] == ['1000.00', '0.20']


def test_what_was_not_timed_is_a_dash():
    results = {**RESULTS, LAYER._replace(in_channels=16): dict(conv2d=2.)}
    lines = summary.ratio_table('title', results, ['max'])
    assert [line.split()[-1] for line in lines[2:]] == ['0.80', '-', '0.80']


def test_means_leave_out_few_channels():
    few = LAYER._replace(out_channels=16)
    results = {**RESULTS, few: dict(conv2d=1., max=100.)}
    assert summary.ratios(results, 'max', 3, 32) == [.8]
    assert summary.ratios(results, 'max') == [.8, .01]
    assert summary.ratios(RESULTS, 'max', other='faiss') == [4.]
    assert summary.ratios(RESULTS, 'max', 1) == []


def test_targets_are_reached_or_missed():
    text = '\n'.join(summary.target_lines(RESULTS))
    assert text.count('reached') == 2  # exact, faiss
    assert text.count('missed') == 2  # the mean of max, and its lowest


def test_scaling_compares_numbers_of_threads():
    halved = {LAYER: dict(conv2d=.5, max=1., faiss=5.)}
    lines = summary.scaling_lines({1: RESULTS, 2: halved}, ['peers'])
    assert [line.split() for line in lines[1:]] == [
        ['speed-up', '1', 'to', '2'], ['conv2d', '2.00'], ['faiss', '1.00']]


def test_memory_is_in_mebibytes():
    lines = summary.memory_table({LAYER: dict(max=2**21),
                                  LAYER._replace(batch=2): dict(int8=2**20)})
    assert [line.split()[-2:] for line in lines[1:]] == [
        ['max', 'int8'], ['2.0', '-'], ['-', '1.0']]


def test_models_are_compared_with_the_baseline():
    benchmark = SimpleNamespace(title='A model', baseline='CNN',
                                variants=('CNN', 'left out', 'ANN'))
    lines = summary.model_table(
        benchmark, dict(CNN=.1, ANN=.25), dict(CNN=2**20, ANN=3 * 2**20))
    assert [line.split() for line in lines[1:]] == [
        ['A', 'model', 'ms', '/', 'CNN', 'MiB'],
        ['CNN', '100.0', '1.00', '1'], ['ANN', '250.0', '2.50', '3']]
