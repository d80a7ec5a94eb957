"""Which metric is chosen, its unit and its better end."""
import numpy as np
import pytest

from mmadder.errors import InputError
from mmadder.runs.metrics import (
    METRICS,
    TEST_LOSS,
    best,
    choose_metric,
    in_percent,
    is_loss,
    is_share,
    label,
    metrics_of,
    worsening,
)

MAP, TOP1 = 'pascal_voc/mAP', 'accuracy/top1'


def test_a_metric_is_a_figure_that_every_record_has():
    records = [{MAP: 1, 'once': 1, 'step': 1, 'time': 2, 'name': 'x'},
               {'x': np.float32(3), MAP: float('nan'), 'step': 2,
                'name': 'y'}]
    assert metrics_of(records) == [MAP]
    assert metrics_of([]) == []


def test_the_usual_metric_is_chosen():
    a, b = [MAP, 'pascal_voc/AP50'], ['pascal_voc/AP50', MAP, 'x']
    assert choose_metric(dict(a=a, b=b)) == MAP
    assert choose_metric(dict(b=['x'])) == 'x'
    assert choose_metric(dict(b=['x', 'own/mAP'])) == 'own/mAP'
    assert choose_metric(dict(a=a, b=b), 'pascal_voc/AP50') == \
        'pascal_voc/AP50'
    found = dict(a=[TOP1, TEST_LOSS])
    assert choose_metric(found) == TOP1
    assert choose_metric(found, None, (TEST_LOSS, *METRICS)) == TEST_LOSS


def test_a_metric_that_not_all_have_is_refused():
    found = dict(a=[MAP, 'pascal_voc/AP50'], b=[TOP1], c=[])
    listing = ('\n  a: pascal_voc/mAP, pascal_voc/AP50\n  b: accuracy/top1'
               '\n  c: no validation')
    with pytest.raises(InputError, match='no validation metric in common:'
                       + listing):
        choose_metric(found)
    with pytest.raises(InputError, match="not every run has the metric "
                       "'accuracy/top1':" + listing):
        choose_metric(found, TOP1)


@pytest.mark.parametrize('metric, share, text', [
    (MAP, True, f'{MAP} in percent'),
    ('pascal_voc/AP50', True, 'pascal_voc/AP50 in percent'),
    ('coco/bbox_mAP_50', True, 'coco/bbox_mAP_50 in percent'),
    (TOP1, False, f'{TOP1} in percent'),
    # MMPretrain's are percent already, this one too.
    ('multi-label/mAP', False, 'multi-label/mAP in percent'),
    (TEST_LOSS, False, TEST_LOSS), ('loss', False, 'loss')])
def test_shares_are_shown_in_percent(metric, share, text):
    assert is_share(metric) == share and label(metric) == text
    shown = in_percent(metric, [.25, None])
    assert shown[0] == (25 if share else .25) and np.isnan(shown[1])


def test_less_is_better_of_a_loss():
    values = [2, np.nan, 1, 4]
    assert is_loss(TEST_LOSS) and not is_loss(MAP)
    assert best(TEST_LOSS, values) == 2 and best(MAP, values) == 3
    np.testing.assert_equal(worsening(TEST_LOSS, values[2:]), [3])
    np.testing.assert_equal(worsening(MAP, values[2:]), [-3])
    assert best(MAP, [np.nan, np.inf]) == 0
