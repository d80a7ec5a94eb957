"""Facts that stand in two places of a detector's config."""
import json

import pytest
from mmengine.config import Config

from mmadder.cli.detector_classes import fit_detector_classes
from mmadder.errors import InputError

ALL = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def make(voc, train=None, val=None, test=None, heads=(6, ), **kwargs):
    """A config of two RoI heads or one dense one, on the digits of ``voc``."""
    def loader(split, classes):
        dataset = dict(
            type='CheckedXMLDataset', data_root=str(voc),
            ann_file=f'ImageSets/Main/{split}.txt', pipeline=[])
        if classes:
            dataset['metainfo'] = dict(classes=classes, palette=[(1, 2, 3)])
        return dict(dataset=dict(dataset, **kwargs))

    boxes = [dict(type='Shared2FCBBoxHead', num_classes=n) for n in heads]
    return Config(dict(
        default_scope='mmdet',
        model=dict(
            rpn_head=dict(type='RPNHead', num_classes=1),
            roi_head=dict(
                bbox_head=boxes, semantic_head=dict(num_classes=183),
                mask_head=dict(num_classes=heads[0]))),
        train_dataloader=dict(dataset=dict(
            type='RepeatDataset', times=2, **loader('train', train))),
        val_dataloader=loader('val', val),
        test_dataloader=dict(dataset=dict(
            type='ConcatDataset', datasets=[
                loader('test', test)['dataset'],
                loader('test', test)['dataset']]))))


def splits(cfg):
    return [cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset,
            *cfg.test_dataloader.dataset.datasets]


NAMES = tuple('012345')


def test_what_agrees_stays(voc):
    cfg = make(voc, NAMES, NAMES, NAMES)
    before = cfg.to_dict()
    assert fit_detector_classes(cfg) is None
    assert cfg.to_dict() == before


@pytest.mark.parametrize('count', [4, 5, 7])
def test_head_of_another_size_is_refused_with_both_numbers(voc, count):
    """With 5 of 6 it trained to the end, the last class as background."""
    with pytest.raises(InputError, match=(
            rf'bbox_head.0 has num_classes={count}, the data have 6 classes '
            r'\(0, 1, 2, 3, 4, 5\).*--cfg-options model.roi_head.bbox_head.0.'
            r'num_classes=6 .*bbox_head.1.*mask_head.num_classes=6, or name '
            'the classes with --classes')):
        fit_detector_classes(
            make(voc, NAMES, NAMES, NAMES, heads=(count, count)))


def test_named_once_is_enough(voc):
    for which in ('train', 'val', 'test'):
        cfg = make(voc, **{which: NAMES})
        assert fit_detector_classes(cfg) is None
        for node in splits(cfg):
            assert tuple(node.metainfo.classes) == NAMES


def test_two_lists_are_refused(voc):
    with pytest.raises(InputError, match=r'another order\)(.|\n)*train_dat'
                       r'aloader.dataset.dataset: 0, 1(.|\n)*val_dataloader'):
        fit_detector_classes(make(voc, NAMES, NAMES[::-1], NAMES))
    with pytest.raises(InputError, match=r'classes \(6 and 5\)'):
        fit_detector_classes(make(voc, NAMES, NAMES[:5]))


def test_named_nowhere_they_are_those_of_the_annotations(voc):
    cfg = make(voc)
    assert fit_detector_classes(cfg).startswith('6 classes, from ')
    assert [tuple(node.metainfo.classes) for node in splits(cfg)] == \
        [NAMES] * 4
    with pytest.raises(InputError, match='num_classes=3, the data have 6'):
        fit_detector_classes(make(voc, heads=(3, )))


def test_a_test_set_without_some_class_has_the_classes_of_training(voc):
    """Else its labels would be other classes than the network's."""
    cfg = make(voc)
    (voc / 'Annotations/train_0.xml').rename(voc / 'Annotations/test_9.xml')
    (voc / 'ImageSets/Main/test.txt').write_text('test_1\ntest_2\n')
    (voc / 'ImageSets/Main/train.txt').write_text(
        ''.join(f'train_{i}\n' for i in range(1, 6)) + 'test_9\n')
    assert fit_detector_classes(cfg, ALL[2:]).startswith('6 classes, from ')
    assert [tuple(node.metainfo.classes) for node in splits(cfg)] == \
        [NAMES] * 4
    for split in ('train', 'val'):  # only a test set is at hand
        (voc / f'ImageSets/Main/{split}.txt').unlink()
    cfg = make(voc, heads=(2, ))
    assert fit_detector_classes(cfg, ALL[2:]).startswith('2 classes, from ')


def test_heads_that_say_no_number_take_that_of_the_data(voc):
    """Also where no data set is to be read, if its classes can be known."""
    cfg = make(voc, heads=(None, None))
    assert '6 classes' in fit_detector_classes(cfg)
    head = cfg.model.roi_head
    assert [node.num_classes for node in (*head.bbox_head, head.mask_head)] \
        == [6] * 3
    for cfg in (make(voc, heads=(None, )),
                make('nowhere', val=NAMES, heads=(None, ))):
        fit_detector_classes(cfg, ())
        assert cfg.model.roi_head.bbox_head[0].num_classes == 6
        assert tuple(splits(cfg)[0].metainfo.classes) == NAMES
    with pytest.raises(InputError, match='bbox_head.0 .*num_classes=None.*'
                       'metainfo.*work directory'):
        fit_detector_classes(make('nowhere', heads=(None, )), ())


def test_without_data_sets_numbers_are_left_alone(voc):
    cfg = make(voc, NAMES, heads=(3, ))
    assert fit_detector_classes(cfg, ()) is None
    assert cfg.model.roi_head.bbox_head[0].num_classes == 3


def test_option_sets_everything(voc):
    cfg = make(voc, NAMES, NAMES[:5], heads=(80, 20))
    assert fit_detector_classes(cfg, classes=['a', 'b']) is None
    assert [node.metainfo for node in splits(cfg)] == \
        [dict(classes=('a', 'b'))] * 4  # without the palette of others
    head = cfg.model.roi_head
    assert [node.num_classes for node in (*head.bbox_head, head.mask_head)] \
        == [2] * 3
    assert cfg.model.rpn_head.num_classes == 1
    assert head.semantic_head.num_classes == 183
    with pytest.raises(InputError, match='class twice: a a'):
        fit_detector_classes(cfg, classes=['a', 'a'])
    with pytest.raises(InputError, match='--classes is for detectors'):
        fit_detector_classes(Config(dict(
            default_scope='mmpretrain', model=dict())), classes=['a'])


def test_list_of_the_data_set_itself(voc):
    """VOC's twenty, of a data set class."""
    cfg = make(voc, heads=(20, ))
    for node in splits(cfg):
        node.type = 'VOCDataset'
    assert fit_detector_classes(cfg) is None
    cfg.model.roi_head.bbox_head[0].num_classes = 21
    with pytest.raises(InputError, match='num_classes=21, the data have 20'):
        fit_detector_classes(cfg)


@pytest.fixture
def coco(tmp_path):
    """Return a function: annotations of some categories; a config."""
    def write(names, classes=None, heads=(2, ), evaluated=None):
        for file, some in (('own.json', names),
                           ('eval.json', evaluated or names)):
            (tmp_path / file).write_text(json.dumps(dict(
                images=[], annotations=[], categories=[
                    dict(id=i + 7, name=name)
                    for i, name in enumerate(some)])))
        cfg = make(tmp_path, classes, heads=heads, type='CocoDataset',
                   ann_file='own.json')
        cfg.val_evaluator = cfg.test_evaluator = dict(
            type='CocoMetric', ann_file=str(tmp_path / 'eval.json'))
        return cfg
    return write


def test_categories_of_own_annotations_in_cocos_format(coco):
    """They died in the first validation: 80 classes of COCO's."""
    cfg = coco(('zebra crossing', 'bollard'))
    assert 'from ' in fit_detector_classes(cfg)
    assert [tuple(node.metainfo.classes) for node in splits(cfg)] == \
        [('zebra crossing', 'bollard')] * 4
    with pytest.raises(InputError, match='num_classes=80, the data have 2'):
        fit_detector_classes(coco(('a', 'b'), heads=(80, )))
    # Some of COCO's own are COCO's.
    assert fit_detector_classes(coco(('person', 'car'), heads=(80, ))) is None


def test_classes_that_the_annotations_lack(coco):
    with pytest.raises(InputError, match='own.json has no categories c, only '
                       'a, b'):
        fit_detector_classes(coco(('a', 'b'), classes=('a', 'c')))
    with pytest.raises(InputError, match='val_evaluator: .*eval.json has no '
                       'categories b'):
        fit_detector_classes(
            coco(('a', 'b'), classes=('a', 'b'), evaluated=('a', )))


@pytest.mark.parametrize('trap', ['', '"categories": [1], "x": "'])
def test_of_a_large_file_the_categories_are_read(coco, tmp_path, monkeypatch,
                                                 trap):
    """COCO's own take half a minute; with another list they are not ours."""
    monkeypatch.setattr('mmadder.cli.detector_classes.LARGE', 10)
    cfg = coco(('zebra crossing', 'bollard \u00e9'))
    path = tmp_path / 'own.json'
    content = json.loads(path.read_text())
    content['images'] = [dict(id=1, file_name=trap)] * 3
    path.write_text(json.dumps(content, ensure_ascii=False))
    monkeypatch.setattr('mmengine.load', pytest.fail)
    fit_detector_classes(cfg, ALL[:1])
    assert splits(cfg)[0].metainfo.classes == (
        'zebra crossing', 'bollard \u00e9')


@pytest.mark.parametrize('categories, message', [
    ([dict(id=1)], r'categories\[0\] must have an integer id and a name'),
    ([dict(id=1, name='a'), dict(name='b')], r'categories\[1\] must have'),
    ([dict(id='1', name='a')], r'categories\[0\] must have an integer id'),
    ([dict(id=1, name=' ')], r'categories\[0\] must have'),
    ([dict(id=1, name=None)], r'categories\[0\] must have'),
    (['a'], r"must have an integer id and a name, got 'a'"),
    ({'1': 'a'}, 'categories must be a list, got dict'),
    ([dict(id=1, name='a'), dict(id=2, name='a')], "have the name 'a'")])
def test_odd_categories(coco, tmp_path, categories, message):
    cfg = coco(('a', 'b'))
    (tmp_path / 'own.json').write_text(json.dumps(dict(
        images=[], annotations=[], categories=categories)))
    with pytest.raises(InputError, match=f'own.json.*{message}'):
        fit_detector_classes(cfg)


@pytest.mark.parametrize('content', [b'{"images": [', b'\xff\xfe1'])
def test_annotations_that_are_no_json(coco, tmp_path, content):
    cfg = coco(('a', 'b'))
    (tmp_path / 'own.json').write_bytes(content)
    with pytest.raises(InputError, match='own.json cannot be read as JSON'):
        fit_detector_classes(cfg)


def test_missing_files_are_left_to_the_data_set(voc):
    cfg = make(voc)
    for node in splits(cfg):
        node.ann_file = 'none.txt'
    assert fit_detector_classes(cfg) is None
