import logging
import pickle
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from conftest import ANNOTATION, annotate_object
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import VOCDataset, XMLDataset
from mmdet.evaluation import VOCMetric
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from PIL import Image

from mmadder.datasets.picture_headers import read_header
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
    ('height>64', 'height>tall', "<size>.*<height>, got 'tall'"),
    ('<name>0</name>', '', r'object 1 has no <name>'),
    ('bndbox>', 'box>', r'object 1 \(0\) has no <bndbox>'),
    ('<xmin>', '<xmin>x', "<bndbox> needs a number in <xmin>, got 'x"),
    ('<ymax>', '<ymax>-', 'ymin > ymax'),
    ('<xmax>', '<xmax>nan</xmax><xmax>', "<xmax>, got 'nan'"),
    ('<ymin>', '<ymin>inf</ymin><ymin>', "<ymin>, got 'inf'"),
    ('<difficult>0', '<difficult>perhaps', "<difficult>, got 'perhaps'"),
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
    assert '5 of 9 entries' in lines[0]
    assert [text in line for text, line in zip(
        ('picture', 'train_2.xml: is not XML', 'ghost_1', 'ghost_2',
         'ghost_3'), lines[1:], strict=True)] == [True] * 5
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
    pipeline = [dict(type='LoadImageFromFile'),
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


# ------------------------------------------------ files as tools write them --


def sound(voc):
    return samples(build(voc, kind='mmdet.XMLDataset'))


def with_paths(infos, names):
    """The information with other file names of the pictures."""
    return [dict(info, img_path=str(Path(info['img_path']).with_name(name)))
            for info, name in zip(infos, names)]


def test_suffixes_of_all_kinds_and_mixed(voc):
    expected = sound(voc)
    names = ['train_0.png', 'train_1.JPG', 'train_2.bmp', 'train_3.jpeg',
             'train_4.PNG', 'train_5.jpg']
    for i, name in enumerate(names):
        path = voc / 'JPEGImages' / f'train_{i}.jpg'
        picture = cv2.imread(str(path))
        path.unlink()
        suffix = Path(name).suffix
        written = path.with_suffix(suffix.lower())
        cv2.imwrite(str(written), picture)
        written.rename(path.with_name(name))
    assert samples(build(voc)) == with_paths(expected, names)


def test_of_two_pictures_the_annotation_decides(voc):
    path = voc / 'JPEGImages' / 'train_0.jpg'
    shutil.copy(path, path.with_suffix('.JPEG'))
    assert samples(build(voc))[0]['img_path'] == str(path)
    replace(voc, '<annotation>',
            '<annotation><filename>train_0.JPEG</filename>')
    assert samples(build(voc))[0]['img_path'].endswith('train_0.JPEG')


def replace(voc, old, new, name='train_0'):
    path = voc / 'Annotations' / f'{name}.xml'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize('old, new', [
    ('size>', 'form>'), ('width>64', 'width>0'), ('height>64', 'height>'),
    ('<difficult>0', '<difficult>'), ('<difficult>0', '<difficult>False'),
    ('<difficult>0', '<difficult>Unspecified'),
    ('<name>0</name>', '<name> 0\n</name>')])
def test_spellings_that_change_nothing(voc, old, new, warnings):
    expected = sound(voc)
    replace(voc, old, new)
    assert samples(build(voc)) == expected
    assert not warnings()


def test_difficult_in_words(voc):
    replace(voc, '<difficult>0', '<difficult>True')
    assert samples(build(voc))[0]['instances'][0]['ignore_flag'] == 1


def test_all_boxes_of_an_object_are_kept(voc):
    box = ('<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>'
           '<ymax>8</ymax></bndbox>')
    replace(voc, '</bndbox>', f'</bndbox>{box}')
    first, second = samples(build(voc))[0]['instances']
    assert second == dict(first, bbox=[0, 1, 8, 7])


@pytest.mark.parametrize('encoding, declared', [
    ('gbk', 'GBK'), ('gb18030', 'gb18030'), ('utf-16', 'UTF-16'),
    ('utf-8-sig', 'utf-8'), ('latin-1', 'ISO-8859-1')])
def test_annotations_in_other_encodings(voc, encoding, declared):
    name = 'M\xfcller' if encoding == 'latin-1' else '\u7ec6\u80de'
    path = voc / 'Annotations' / 'train_0.xml'
    text = path.read_text().replace('<name>0<', f'<name>{name}<')
    path.write_bytes(
        f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(
            encoding))
    dataset = build(voc, metainfo=dict(classes=(name, *CLASSES[1:])))
    assert samples(dataset)[0]['instances'][0]['bbox_label'] == 0


@pytest.mark.parametrize('declared', ['', ' encoding="no-such-thing"'])
def test_undeclared_encoding_is_named(voc, declared):
    path = voc / 'Annotations' / 'train_0.xml'
    text = path.read_text().replace('<name>0<', '<name>\u7ec6\u80de<')
    path.write_bytes(f'<?xml version="1.0"{declared}?>{text}'.encode('gbk'))
    with pytest.raises(InputError, match='train_0.xml: (is not XML|cannot)'):
        build(voc)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-be'])
def test_split_files_in_other_encodings(voc, encoding):
    split = voc / 'ImageSets' / 'Main' / 'train.txt'
    expected, text = sound(voc), split.read_text()
    mark = '\ufeff' if encoding == 'utf-16-be' else ''
    split.write_bytes((mark + text).encode(encoding))
    assert samples(build(voc)) == expected


def test_split_of_unknown_encoding_is_named(voc):
    split = voc / 'ImageSets' / 'Main' / 'train.txt'
    split.write_bytes('\u7ec6\u80de\n'.encode('gbk'))
    with pytest.raises(InputError, match='train.txt is not UTF-8'):
        build(voc)


@pytest.mark.parametrize('line', [
    '{}', ' {} \r', '{}\t', '{}.jpg', '{}.JPG', '{}.png', '{} -1', '{}  1',
    '{} 0', '\n\n{}\n'])
def test_lines_of_split_files(voc, line):
    split = voc / 'ImageSets' / 'Main' / 'train.txt'
    expected = sound(voc)
    split.write_text('\n'.join(
        line.format(name) for name in split.read_text().split()))
    assert samples(build(voc)) == expected


def test_names_that_look_like_more_than_a_name(voc):
    for folder, suffix in (('JPEGImages', 'jpg'), ('Annotations', 'xml')):
        for name in ('a 1', 'b.jpg', 'c.d'):
            shutil.copy(voc / folder / f'train_0.{suffix}',
                        voc / folder / f'{name}.{suffix}')
    (voc / 'ImageSets' / 'Main' / 'train.txt').write_text('a 1\nb.jpg\nc.d')
    assert [info['img_id'] for info in samples(build(voc))] == [
        'a 1', 'b.jpg', 'c.d']


# ------------------------------------------------------- boxes and pictures --


def turned(voc, name='train_0', orientation=6, size=(80, 64)):
    """Write a picture that EXIF turns, stored as (width, height)."""
    path = voc / 'JPEGImages' / f'{name}.jpg'
    picture = Image.new('RGB', size, (90, 80, 70))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)
    return path


def annotated(voc, box, size, name='train_0'):
    (voc / 'Annotations' / f'{name}.xml').write_text(ANNOTATION.format(
        size='{}', objects=annotate_object('0', box)).replace(
            '<width>{}', f'<width>{size[0]}').replace(
            '<height>{}', f'<height>{size[1]}'))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_header_says_what_opencv_loads(voc, orientation):
    path = turned(voc, orientation=orientation)
    height, width = LoadImageFromFile()(dict(img_path=str(path)))['img_shape']
    header = read_header(path)
    assert (header.width, header.height) == (width, height)
    assert header.turned == (orientation > 4)


def test_turned_picture_annotated_as_shown_is_right(voc, warnings):
    turned(voc)
    annotated(voc, (10, 40, 60, 78), size=(64, 80))
    info = samples(build(voc))[0]
    assert (info['width'], info['height']) == (64, 80)
    assert not warnings()


def test_turned_picture_annotated_as_stored_is_a_warning(voc, warnings):
    turned(voc)
    annotated(voc, (40, 10, 78, 60), size=(80, 64))
    build(voc)
    assert len(warnings()) == 1
    assert 'width and height are exchanged' in warnings()[0]
    assert 'train_0.jpg (64x80, by EXIF)' in warnings()[0]


def test_only_the_size_is_exchanged(voc, warnings):
    turned(voc)
    annotated(voc, (10, 40, 60, 78), size=(80, 64))
    build(voc)
    assert len(warnings()) == 1
    assert 'nothing to do' in warnings()[0]
    assert 'outside' not in warnings()[0]


def test_rescaled_pictures_are_a_warning_with_names(voc, warnings):
    for i in range(2):
        path = str(voc / 'JPEGImages' / f'train_{i}.jpg')
        cv2.imwrite(path, cv2.resize(cv2.imread(path), (32, 32)))
    info = samples(build(voc))[0]
    assert (info['width'], info['height']) == (32, 32)
    assert 'another size than their annotation names: 2.' in warnings()[0]
    assert 'train_1.jpg (32x32, annotated as 64x64)' in warnings()[0]


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp'])
@pytest.mark.parametrize('keep', [0., .5, .98])
def test_truncated_pictures_are_found_before_training(voc, suffix, keep):
    path = voc / 'JPEGImages' / 'train_3.jpg'
    picture = cv2.imread(str(path))
    path.unlink()
    path = path.with_suffix(suffix)
    cv2.imwrite(str(path), picture)
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content))])
    with pytest.raises(InputError, match=f'picture .*train_3{suffix} is '):
        build(voc)


def test_padded_picture_is_whole(voc):
    path = voc / 'JPEGImages' / 'train_0.jpg'
    path.write_bytes(path.read_bytes() + bytes(100))
    assert len(build(voc)) == 6


def test_damage_behind_the_header_is_named_when_it_is_met(voc):
    """As the stock loader is in the config, and in the built pipeline not."""
    pipeline = [dict(type='LoadImageFromFile')]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = build(voc, pipeline=pipeline)
    (voc / 'JPEGImages' / 'train_0.jpg').write_bytes(b'')
    with pytest.raises(InputError, match='train_0.jpg cannot be decoded'):
        dataset[0]
