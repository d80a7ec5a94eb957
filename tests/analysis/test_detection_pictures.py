"""Curves, confusions and boxes of detections, as they are drawn."""
import cv2
import numpy as np
import pytest
from boxes import annotate, detections, predict

from mmadder.analysis import average_precision
from mmadder.analysis.detection_pictures import (
    draw_predictions,
    plot_confusion,
    plot_precision_recall,
    tile,
)
from mmadder.errors import InputError


@pytest.fixture
def found(tmp_path):
    """Detections of one grey picture, 128x64 pixels (width x height)."""
    found = detections([predict([0, 1], [.9, .4])], [annotate([0, 1])])
    found.paths = [str(tmp_path / 'a.png')]
    cv2.imwrite(found.paths[0], np.full((64, 128, 3), 90, np.uint8))
    return found


def test_a_curve_for_each_class(found):
    _, rows = average_precision(found)
    axes = plot_precision_recall(rows * 3).axes
    assert len(axes) == 10 and axes[0].get_title().startswith('a   AP 1.000')
    assert [axis.axison for axis in axes] == [True] * 6 + [False] * 4
    assert list(axes[0].lines[0].get_ydata()) == [1]


def test_confusions_in_shares_of_the_true_class():
    axis, = plot_confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 0]]),
                           ('a', 'b')).axes
    np.testing.assert_allclose(axis.images[0].get_array()[0], [.75, .25, 0])
    assert [text.get_text() for text in axis.texts] == ['3', '1', '2']
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [
        'a', 'b', 'none']


def test_annotations_left_and_sure_predictions_right(found):
    sheet = draw_predictions(found, [0], side=64)
    assert sheet.shape == (64, 2 * 256 + 8, 3)
    left, right = sheet[:, :128], sheet[:, 128:256]
    # The lower right corners of both objects; the second scores .4.
    assert (left[60, 50] > 200).all() and (left[30, 20] > 200).all()
    assert right[30, 20, 1] > 180 and right[30, 20, 0] < 120
    assert (right[60, 50] == 90).all()
    found.paths = ['none.png']
    with pytest.raises(InputError, match='none.png cannot be read'):
        draw_predictions(found, [0])


def test_tiles_are_put_row_by_row():
    sheet = tile([np.full((2, 3, 3), i, np.uint8) for i in range(3)],
                 columns=2, gap=1)
    assert sheet.shape == (5, 7, 3)
    assert sheet[0, 0, 0] == 0 and sheet[0, 4, 0] == 1 and sheet[3, 0, 0] == 2
    assert sheet[2].min() == 255 and sheet[3, 4].min() == 255
