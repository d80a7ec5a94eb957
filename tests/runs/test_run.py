"""What is read of a work directory: classes, class AP, wall time."""
import pytest
from recordings import VOC_LOG, VOC_TABLE, write_logged_run

from mmadder.errors import InputError
from mmadder.runs.run import read_run

MAP = 'pascal_voc/mAP'


def test_log_gives_class_ap_and_wall_time(tmp_path):
    tables = [VOC_TABLE.format(a='0.500', b='0.300', mean='0.400'),
              VOC_TABLE.format(a='0.800', b='0.700', mean='0.750'),
              VOC_TABLE.format(a='0.900', b='0.800', mean='0.850')]
    log = VOC_LOG.format(tables='iou_thr: 0.5\n'.join(tables))
    folder = write_logged_run(tmp_path, [.4, .7502], log=log)
    write_logged_run(folder, [.7502], log=log.replace('10:', '12:'),
                     stamp='20260101_120000', begin=1)  # resumed
    run = read_run(folder)
    assert run.class_ap(MAP) == {'a': .8, 'b c': .7}
    assert run.seconds == 3600
    assert read_run(folder / '20260101_120000').seconds == 1800


def test_a_training_begun_anew_is_not_the_one_before(tmp_path):
    """The time, too, is its own."""
    log = VOC_LOG.format(tables='')
    folder = write_logged_run(tmp_path, [.1, .2, .3, .4], log=log)
    write_logged_run(folder, [.6], log=log, stamp='20260101_120000')
    write_logged_run(folder, [.5], log=log, stamp='20260101_130000', begin=1)
    run = read_run(folder)
    assert [record[MAP] for record in run.val] == [.6, .5]
    assert run.seconds == 3600


def test_classes_and_steps(tmp_path):
    run = read_run(write_logged_run(tmp_path / 'a', [.1, .2]))
    assert run.classes == ('a', 'b c') and run.step_name == 'epoch'
    assert run.class_ap(MAP) == {} and run.seconds == 0
    run = read_run(write_logged_run(tmp_path / 'b', [.1], classes=None))
    assert run.classes is None
    run.val[0]['step'] = 1000
    assert run.step_name == 'iteration'


def test_coco_logs_the_classes_itself(tmp_path):
    run = read_run(write_logged_run(tmp_path, [.3], 'coco/bbox_mAP'))
    run.val[-1].update({'coco/a_precision': .2, 'coco/b c_precision': .4})
    assert run.class_ap('coco/bbox_mAP') == {'a': .2, 'b c': .4}


def test_folders_without_a_training(tmp_path):
    with pytest.raises(InputError, match='no vis_data/scalars.json in'):
        read_run(tmp_path)
    with pytest.raises(InputError, match='is not a directory'):
        read_run(tmp_path / 'none')
    data = tmp_path / '1' / 'vis_data'
    data.mkdir(parents=True)
    (data / 'scalars.json').write_text('{"step": 1, "x": 2}')
    with pytest.raises(InputError, match='no training losses yet'):
        read_run(tmp_path)
