import pytest

from mmadder.errors import InputError
from mmadder.robustness import (
    Column,
    adaptive_column,
    attacker_columns,
    corruption_columns,
    eps_sweep,
    neighbours_columns,
    steps_sweep,
    table_columns,
    unbounded_column,
)


def test_columns_are_the_papers():
    assert [column.label for column in table_columns()] == [
        'Clean', 'FGSM', 'BIM7', 'PGD7', 'MIM5', 'RFGSM5']
    assert all(column.attack.eps == 8 / 255 for column in
               table_columns()[1:])
    assert [column.label for column in table_columns(names=['FGSM'])] == [
        'Clean', 'FGSM']
    assert [column.label for column in attacker_columns()] == [
        'PGD7 detached', 'PGD7 eval-made']
    column = unbounded_column()
    assert column.label == 'BIM10 unbounded'
    assert column.attack.steps * column.attack.alpha >= column.attack.eps
    column = adaptive_column(.1, images=3)
    assert (column.label, column.kind) == ('APGD50 adaptive', 'adaptive')
    assert (column.attack.eps, column.images) == (.1, 3)
    assert [column.label for column in neighbours_columns([.5, .99])] == [
        'PGD20 neighbours 50%', 'PGD7 benign 50%',
        'PGD20 neighbours 99%', 'PGD7 benign 99%']
    assert [column.label for column in corruption_columns(['contrast'])] == [
        f'contrast severity {i}' for i in range(1, 6)]
    assert len(corruption_columns()) == len(corruption_columns([])) == 20
    first = eps_sweep([.07, .1])[0]
    assert first.label == 'PGD7 eps=0.07'
    assert first.attack.alpha == pytest.approx(.01)
    assert [c.label for c in steps_sweep([1, 50])] == [
        'PGD1 steps', 'PGD50 steps']
    assert {c.images for c in (*eps_sweep(images=3), *steps_sweep(images=3))
            } == {3}


def test_wrong_kinds():
    with pytest.raises(InputError, match="'benign'., got 'detach'"):
        Column(kind='detach')
    with pytest.raises(InputError, match="got 'benign' with None"):
        Column(kind='benign')
    with pytest.raises(InputError, match="got 'white-box' with 0.5"):
        Column(share=.5)
    with pytest.raises(InputError, match='between 0 and 1; got 50'):
        Column(kind='benign', share=50)
