import pytest

from mmadder.errors import InputError
from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    corruption_table,
    markdown_table,
    write_merged,
)


def cells(line):
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_merged_table(toy_set, tmp_path):
    model, images, labels = toy_set
    for name, count in (('x', 40), ('y', 20)):
        evaluation = Evaluation(
            model, images, labels, 20, path=tmp_path / f'{name}.json',
            facts=dict(name=name))
        evaluation.measure('eval', Column())
        evaluation.measure('R', Column())
        evaluation.measure('R', Column(Attack('FGSM'), images=count))
    table, written = write_merged(
        [tmp_path / 'x.json', tmp_path / 'y.json'], tmp_path / 'out')
    assert written[0].read_text() == table + '\n'
    lines = table.splitlines()
    assert cells(lines[0]) == ['network', 'Clean', 'FGSM']
    assert [cells(line)[0] for line in lines[2:]] == ['x', 'x-R', 'y', 'y-R']
    assert cells(lines[2])[2] == ''  # no such attack in this mode
    assert cells(lines[5])[2].startswith('(')  # on fewer images
    del evaluation.results['rows']['R']['Clean']
    *_, alone = markdown_table([evaluation.results]).splitlines()
    assert cells(alone)[2].startswith('(')  # all that this row has
    other = Evaluation(model, images.flip(0), labels.flip(0), 20,
                       path=tmp_path / 'z.json', facts=dict(name='z'))
    other.measure('eval', Column())
    with pytest.raises(InputError, match='their data differs'):
        write_merged([tmp_path / 'x.json', tmp_path / 'z.json'], tmp_path)
    *_, line = markdown_table([other.results]).splitlines()
    assert cells(line)[0] == 'z'
    with pytest.raises(InputError, match='two runs have the same name'):
        write_merged([tmp_path / 'x.json'] * 2, tmp_path)
    other = Evaluation(model, images, labels, 20, path=tmp_path / 'w.json',
                       facts=dict(name='w'))
    other.measure('R', Column(Attack('FGSM', eps=.1)))
    with pytest.raises(InputError, match='FGSM is another attack in w'):
        write_merged([tmp_path / 'x.json', tmp_path / 'w.json'], tmp_path)


def test_the_papers_tables(toy_set, tmp_path):
    """1: eval and R; 3: r and R; mode by mode, columns of the paper."""
    model, images, labels = toy_set
    for name in ('x', 'y'):
        evaluation = Evaluation(
            model, images, labels, 20, path=tmp_path / f'{name}.json',
            facts=dict(name=name))
        evaluation.run(['eval', 'R', 'r'], [
            Column(), Column(Attack('FGSM')), Column(Attack('BIM', steps=1))])
    _, written = write_merged(
        [tmp_path / 'x.json', tmp_path / 'y.json'], tmp_path / 'out')
    assert [path.name for path in written] == [
        'table.md', 'table1.md', 'table3.md']
    for path, rows in zip(written[1:], (['x', 'y', 'x-R', 'y-R'],
                                        ['x-r', 'y-r', 'x-R', 'y-R'])):
        lines = path.read_text().splitlines()
        assert cells(lines[0]) == ['network', 'Clean', 'FGSM']
        assert [cells(line)[0] for line in lines[2:]] == rows


def test_corruptions_are_a_table_of_their_own():
    def entry(accuracy, note='', correct=('1' * 10, )):
        return dict(accuracy=accuracy, images=10 * len(correct),
                    correct=correct, column=dict(note=note))

    run = dict(settings=dict(name='x'), rows={
        'eval': {'Clean': entry(.9, correct=('1100000000', '1' * 10)),
                 'PGD7 steps': entry(.1, 'steps'),
                 'fog severity 1': entry(.5, 'severity 1'),
                 'fog severity 2': entry(.25, 'severity 2')},
        'R': {'fog severity 1': dict(entry(.4, 'severity 1'), images=5)},
        'r': {'Clean': entry(.8)}})
    lines = [cells(line) for line in corruption_table([run]).splitlines()]
    assert lines[0] == ['', 'x', 'x-R']
    assert lines[2:] == [
        ['Clean', '20.0', ''], ['fog severity 1', '50.0', '(40.0)'],
        ['fog severity 2', '25.0', ''],
        ['mean of the corruptions', '37.5', '40.0']]
    assert corruption_table([dict(run, rows=dict(r=run['rows']['r']))]) == ''
