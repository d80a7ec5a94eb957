import logging
import pickle
import shutil

import pytest
import torch
from mmdet.datasets import VOCDataset, XMLDataset
from mmdet.evaluation import VOCMetric
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from mmadder.datasets.voc import CheckedXMLDataset
from mmadder.errors import InputError

CLASSES = ('0', '1', '2', '3', '4', '5')


def build(root, split='train', kind='CheckedXMLDataset', **kwargs):
    cfg = dict(type=kind, data_root=str(root),
               ann_file=f'ImageSets/Main/{split}.txt',
               data_prefix=dict(sub_data_root=''),
               metainfo=dict(classes=CLASSES), pipeline=[])
    return DATASETS.build(dict(cfg, **kwargs))


@pytest.fixture
def log():
    """Collect the records of the current logger."""
    records = []

    class Collector(logging.Handler):

        def emit(self, record):
            records.append(record)

    collector = Collector()
    logger = MMLogger.get_current_instance()
    logger.addHandler(collector)
    yield records
    logger.removeHandler(collector)


@pytest.fixture
def warnings(log):
    """Return a function that gives the texts of the warnings so far."""
    return lambda: [record.getMessage() for record in log
                    if record.levelno == logging.WARNING]


def samples(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


@pytest.mark.parametrize('kwargs', [
    dict(), dict(test_mode=True), dict(lazy_init=True), dict(indices=2),
    dict(serialize_data=False),
    dict(filter_cfg=dict(filter_empty_gt=True, bbox_min_size=20))])
def test_sound_data_gives_the_samples_of_xml_dataset(voc, warnings, kwargs):
    checked = build(voc, **kwargs)
    plain = build(voc, kind='mmdet.XMLDataset', **kwargs)
    checked.full_init()
    plain.full_init()
    assert isinstance(checked, XMLDataset)
    assert samples(checked) == samples(plain)
    assert len(checked) == kwargs.get('indices', 6)
    assert samples(pickle.loads(pickle.dumps(checked))) == samples(plain)
    assert not warnings()


def test_data_prefix_may_be_left_out(voc):
    assert samples(build(voc, data_prefix=dict())) == samples(build(voc))


@pytest.mark.parametrize('count', [3, 21])
def test_voc_metric_prints_the_classes_of_the_config(voc, log, count):
    """Guard issue 2: below VOC2007 it printed aeroplane, bicycle, ..."""
    classes = CLASSES[:1] + tuple(f'kind{i}' for i in range(1, count))
    dataset = build(voc, metainfo=dict(classes=classes))
    metric = VOCMetric()
    metric.dataset_meta = dataset.metainfo
    instance = samples(dataset)[0]['instances'][0]
    boxes = torch.tensor([instance['bbox']], dtype=torch.float32)
    labels = torch.tensor([0])
    metric.process({}, [dict(
        gt_instances=dict(bboxes=boxes, labels=labels),
        ignored_instances=dict(bboxes=boxes[:0], labels=labels[:0]),
        pred_instances=dict(bboxes=boxes, labels=labels,
                            scores=torch.ones(1)))])
    assert metric.evaluate(1)['pascal_voc/mAP'] == 1
    printed = '\n'.join(record.getMessage() for record in log)
    assert classes[-1] in printed
    assert 'aeroplane' not in printed


def test_box_without_area_is_ignored_in_training_only(
        voc, annotation, warnings):
    path = voc / 'Annotations' / 'train_2.xml'
    path.write_text(annotation('2', (10, 20, 10, 30)))
    train, test = build(voc), build(voc, test_mode=True)
    flags = [[i['ignore_flag'] for i in info['instances']]
             for info in samples(train)]
    assert flags == [[0], [0], [1], [0], [0], [0]]
    assert samples(test)[2]['instances'][0]['ignore_flag'] == 0
    assert len(warnings()) == 2
    assert 'without area (ignored in training): 1, in train_2.xml' in \
        warnings()[0]
    assert 'counted as in XMLDataset' in warnings()[1]


def test_box_outside_is_kept_and_reported(voc, annotation, warnings):
    """One without area inside would become flat when Resize clips it."""
    folder = voc / 'Annotations'
    (folder / 'train_0.xml').write_text(annotation('0', (0, 0, 64, 64)))
    (folder / 'train_1.xml').write_text(annotation('1', (40, 40, 90, 60)))
    (folder / 'train_2.xml').write_text(annotation('2', (70, 10, 90, 60)))
    infos = samples(build(voc))
    assert [i['instances'][0]['ignore_flag'] for i in infos[:3]] == [0, 0, 1]
    assert infos[1]['instances'][0]['bbox'] == [39, 39, 89, 59]
    assert len(warnings()) == 1
    assert 'reach outside their picture (kept): 2' in warnings()[0]


def test_unknown_class_is_one_warning_with_counts(voc, warnings):
    dataset = build(voc, metainfo=dict(classes=('0', '1')))
    assert [len(info['instances']) for info in samples(dataset)] == \
        [1, 1, 0, 0, 0, 0]
    assert len(warnings()) == 1
    assert 'not in the config: 2 (1), 3 (1), 4 (1), 5 (1)' in warnings()[0]


def test_no_object_left_is_an_error(voc, annotation):
    with pytest.raises(InputError, match=r"classes \('cat',\).*'0': 1"):
        build(voc, metainfo=dict(classes=('cat', )))
    for path in (voc / 'Annotations').iterdir():
        path.write_text(annotation('0', (10, 20, 10, 30)))
    with pytest.raises(InputError, match='none that can be used'):
        build(voc)


def test_no_picture_left_is_an_error(voc):
    with pytest.raises(InputError, match='none of the 6 pictures.*min_size'):
        build(voc, filter_cfg=dict(min_size=100))


@pytest.mark.parametrize('classes', [None, (), 'cell', ('a', 'a')])
def test_bad_classes(voc, classes):
    metainfo = None if classes is None else dict(classes=classes)
    with pytest.raises(InputError, match='classes|class twice'):
        build(voc, metainfo=metainfo)


def test_bbox_min_size_is_for_training(voc):
    with pytest.raises(InputError, match='bbox_min_size.*training'):
        build(voc, test_mode=True, filter_cfg=dict(bbox_min_size=2))


def test_missing_root_and_split(voc):
    with pytest.raises(InputError, match='nowhere/? is not a directory'):
        build(voc / 'nowhere')
    with pytest.raises(InputError, match='other.txt.*does not exist'):
        build(voc, split='other')
    (voc / 'ImageSets' / 'Main' / 'train.txt').write_text('\n\n')
    with pytest.raises(InputError, match='train.txt is empty'):
        build(voc)


def test_lazy_init_reports_when_it_loads(voc):
    (voc / 'Annotations' / 'train_0.xml').unlink()
    dataset = build(voc, lazy_init=True)
    with pytest.raises(InputError, match='train_0.xml does not exist'):
        dataset.full_init()


@pytest.mark.parametrize('old, new, message', [
    ('<annotation>', '<annotation', 'is not XML'),
    ('<size>', '<form>', 'is not XML'),
    ('size>', 'form>', 'has no <size>'),
    ('width>64', 'width>0', 'positive <width>'),
    ('height>64', 'height>tall', "<size>.*<height>, got 'tall'"),
    ('<name>0</name>', '', r'object 1 has no <name>'),
    ('bndbox>', 'box>', r'object 1 \(0\) has no <bndbox>'),
    ('<xmin>', '<xmin>x', "<bndbox> needs a number in <xmin>, got 'x"),
    ('<ymax>', '<ymax>-', 'ymin > ymax'),
    ('<xmax>', '<xmax>nan</xmax><xmax>', "<xmax>, got 'nan'"),
    ('<ymin>', '<ymin>inf</ymin><ymin>', "<ymin>, got 'inf'"),
    ('<difficult>0', '<difficult>no', "<difficult>, got 'no'"),
])
def test_malformed_annotation(voc, old, new, message):
    path = voc / 'Annotations' / 'train_0.xml'
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=f'train_0.xml.*{message}'):
        build(voc)


def test_problems_are_collected_into_one_error(voc):
    (voc / 'JPEGImages' / 'train_1.jpg').unlink()
    (voc / 'Annotations' / 'train_2.xml').write_bytes(b'')
    split = voc / 'ImageSets' / 'Main' / 'train.txt'
    split.write_text(split.read_text() + '\nghost_1\nghost_2\nghost_3\n')
    with pytest.raises(InputError) as caught:
        build(voc)
    lines = str(caught.value).splitlines()
    assert '6 of 10 entries' in lines[0]
    assert [text in line for text, line in zip(
        ('picture', 'train_2.xml is not XML', 'line 7 is blank', 'ghost_1',
         'ghost_2', 'and 1 more'), lines[1:], strict=True)] == [True] * 6
    assert 'train_1.jpg does not exist' in lines[1]


@pytest.mark.parametrize('scoped', [MMDET_DATASETS, MMPRETRAIN_DATASETS])
def test_name_is_found_in_each_scope(scoped):
    assert scoped.get('CheckedXMLDataset') is CheckedXMLDataset


def devkit_split(devkit, year, split='trainval', **kwargs):
    return build(
        devkit, ann_file=f'{year}/ImageSets/Main/{split}.txt',
        data_prefix=dict(sub_data_root=f'{year}/'),
        metainfo=dict(classes=VOCDataset.METAINFO['classes']), **kwargs)


def test_devkit_gives_the_samples_of_voc_dataset(devkit):
    for year, count in dict(VOC2007=2, VOC2012=4).items():
        checked = devkit_split(devkit, year)
        plain = devkit_split(devkit, year, kind='mmdet.VOCDataset')
        assert samples(checked) == samples(plain)
        assert len(checked) == count
        labels = {i['bbox_label'] for info in samples(checked)
                  for i in info['instances']}
        assert labels == set(range(20))


def test_concatenation_names_the_year_that_lacks(devkit):
    datasets = [dict(
        type='CheckedXMLDataset', data_root=str(devkit), pipeline=[],
        ann_file=f'{year}/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root=f'{year}/'),
        metainfo=dict(classes=VOCDataset.METAINFO['classes']))
        for year in ('VOC2007', 'VOC2012')]
    cfg = dict(type='mmdet.ConcatDataset', datasets=datasets)
    assert len(DATASETS.build(cfg)) == 6
    picture = devkit / 'VOC2012' / 'JPEGImages' / 'trainval_2.jpg'
    picture.unlink()
    with pytest.raises(InputError, match=f'picture {picture} does not exist'):
        DATASETS.build(cfg)
    shutil.rmtree(devkit / 'VOC2012')
    with pytest.raises(InputError, match=r'VOC2012/ is not a directory, '
                       'expected one with JPEGImages and Annotations'):
        DATASETS.build(cfg)


def test_difficult_objects_are_no_targets(devkit):
    """They are kept apart from the boxes that the losses see."""
    pipeline = [dict(type='CheckedLoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs')]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = devkit_split(devkit, 'VOC2007', pipeline=pipeline)
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        assert len(sample.gt_instances) == 10
        assert sample.ignored_instances.bboxes.tensor.tolist() == [
            [41, 43, 59, 61]]


@pytest.mark.parametrize('mode', ['11points', 'area'])
def test_difficult_objects_are_neither_hits_nor_misses(devkit, mode):
    dataset = devkit_split(devkit, 'VOC2007', 'test', test_mode=True)
    figures = [evaluate(dataset, mode, difficult)
               for difficult in (False, True)]
    assert figures[0] == pytest.approx(1)  # not found: no miss
    assert figures[1] == pytest.approx(1)  # found first: no false positive


def evaluate(dataset, mode, difficult):
    """Return the mAP of the ground truth, the difficult objects found first
    or not at all."""
    metric = VOCMetric(eval_mode=mode)
    metric.dataset_meta = dataset.metainfo
    for info in samples(dataset):
        truth = {flag: instances_of(info, flag) for flag in (0, 1)}
        found = [truth[0], truth[1]] if difficult else [truth[0]]
        boxes, labels = (torch.cat([part[key] for part in found])
                         for key in ('bboxes', 'labels'))
        metric.process({}, [dict(
            gt_instances=truth[0], ignored_instances=truth[1],
            pred_instances=dict(
                bboxes=boxes, labels=labels,
                scores=torch.linspace(0.1, 1, len(labels))))])
    return metric.evaluate(len(dataset))['pascal_voc/mAP']


def instances_of(info, flag):
    instances = [i for i in info['instances'] if i['ignore_flag'] == flag]
    return dict(
        bboxes=torch.tensor([i['bbox'] for i in instances],
                            dtype=torch.float32),
        labels=torch.tensor([i['bbox_label'] for i in instances]))
