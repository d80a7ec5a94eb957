"""A checkpoint for other classes is refused, or said to be one."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmadder.checkpoints.classes import differing_classes, trained_classes
from mmadder.checkpoints.state_dict import compare_state_dict
from mmadder.errors import InputError

MODEL = (Path(__file__).parents[2] / 'configs' / '_base_' / 'models'
         / 'faster-rcnn_ann-awn-r18_ann-awn-fpn_w32.py')


class Data(BaseDataset):

    def load_data_list(self):
        return [dict(inputs=torch.rand(3)) for _ in range(4)]


class Head(nn.Linear):

    def __init__(self, num_classes):
        super().__init__(3, num_classes)
        self.num_classes = num_classes


class Toy(BaseModel):

    def __init__(self, num_classes):
        super().__init__()
        self.backbone = nn.Linear(3, 3)
        self.head = Head(num_classes)

    def forward(self, inputs, mode='tensor', **kwargs):
        output = self.head(self.backbone(torch.stack(inputs)))
        return dict(loss=output.mean()) if mode == 'loss' else [output]


def make_runner(tmp_path, classes, hook=dict(type='CheckpointCheckHook'),
                **kwargs):
    data = dict(dataset=Data(metainfo=dict(classes=classes)), batch_size=2,
                num_workers=0, sampler=dict(type='DefaultSampler'))
    return Runner(
        Toy(len(classes)), work_dir=str(tmp_path), custom_hooks=[hook],
        train_dataloader=data, test_dataloader=data, test_evaluator=[],
        test_cfg=dict(), train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=f'{tmp_path.name}_{id(kwargs)}', **kwargs)


@pytest.fixture
def trained(tmp_path):
    """Return the checkpoint of a training for a cat, a dog and a cow."""
    make_runner(tmp_path / 'first', ('cat', 'dog', 'cow')).train()
    return str(tmp_path / 'first' / 'epoch_1.pth')


def test_same_classes(tmp_path, trained):
    make_runner(tmp_path, ('cat', 'dog', 'cow'), load_from=trained).test()
    make_runner(tmp_path, ('cat', 'dog', 'cow'), load_from=trained,
                resume=True).train()


@pytest.mark.parametrize('resume', [False, True])
def test_another_number_names_head_and_counts(tmp_path, trained, resume):
    runner = make_runner(tmp_path, ('cat', 'dog'), load_from=trained,
                         resume=resume)
    with pytest.raises(InputError, match=r'head.weight \(\(3, 3\) in the '
                       r'file, \(2, 3\) in the model, for 3 and 2 classes'):
        runner.train() if resume else runner.test()


@pytest.mark.parametrize('resume', [False, True])
def test_another_order(tmp_path, trained, resume):
    runner = make_runner(tmp_path, ('cat', 'cow', 'dog'), load_from=trained,
                         resume=resume)
    with pytest.raises(InputError) as caught:
        runner.train() if resume else runner.test()
    message = str(caught.value)
    assert message.startswith(f'checkpoint {trained} was trained for other '
                              "classes: 'dog' in the checkpoint is 'cow' in")
    assert 'compare_classes=False' in message


def test_comparison_can_be_left_out(tmp_path, trained):
    make_runner(
        tmp_path, ('Katze', 'Hund', 'Kuh'), load_from=trained,
        hook=dict(type='CheckpointCheckHook', compare_classes=False)).test()


def test_fine_tuning_for_other_classes_is_a_warning(tmp_path, trained):
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    runner = make_runner(tmp_path, ('cat', 'dog'), load_from=trained)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    runner.train()
    logger.removeHandler(handler)
    assert any('trained for other classes: 3 in the checkpoint, 2 in the '
               'dataset; layers' in r.getMessage() for r in records)
    runner.test()  # its own model now


@pytest.mark.parametrize('meta, classes', [
    (None, ()), (dict(), ()), (dict(dataset_meta=None), ()),
    (dict(dataset_meta=[dict(classes=('a', ))]), ()),
    (dict(dataset_meta=['a']), ()),
    (dict(dataset_meta=[], CLASSES=['a', 'b']), ('a', 'b')),
    (dict(dataset_meta=dict(CLASSES=['a', 'b'])), ('a', 'b')),
    (dict(dataset_meta=dict(classes=['a', 'b'])), ('a', 'b')),
    (dict(CLASSES=('a', 'b')), ('a', 'b'))])
def test_trained_classes(meta, classes):
    assert trained_classes(dict(meta=meta, state_dict={})) == classes


def test_datasets_without_class_names_pass():
    assert not differing_classes(('a', ), [1, 2])
    assert not differing_classes(('a', ), Data())
    assert not differing_classes((), Data(metainfo=dict(classes=('b', ))))


def test_long_differences_are_cut():
    text = differing_classes(
        tuple('abcdef'), Data(metainfo=dict(classes=tuple('abzyxw'))))
    assert text.endswith("'e' in the checkpoint is 'x' in the dataset "
                         'and 1 more')


@pytest.mark.parametrize('old, new', [(20, 3), (3, 20)])
def test_detector_names_its_classifier(old, new):
    """And no layer that has nothing to do with classes."""
    models = []
    for number in (old, new):
        cfg = Config.fromfile(MODEL).model
        cfg.roi_head.bbox_head.update(num_classes=number, fc_out_channels=8)
        with DefaultScope.overwrite_default_scope('mmdet'):
            models.append(MODELS.build(cfg))
    difference = compare_state_dict(models[1], models[0].state_dict())
    assert not difference.missing and not difference.unexpected
    named = [key for key in difference.misshapen if 'classes' in key]
    assert named == [
        f'roi_head.bbox_head.fc_cls.weight (({old + 1}, 8) in the file, '
        f'({new + 1}, 8) in the model, for {old} and {new} classes)',
        f'roi_head.bbox_head.fc_cls.bias (({old + 1},) in the file, '
        f'({new + 1},) in the model, for {old} and {new} classes)']
    assert len(difference.misshapen) == 4  # and fc_reg


@pytest.mark.parametrize('meta, expected', [
    (dict(dataset_meta=dict(classes=('a', 'b'))), ('a', 'b')),
    (dict(dataset_meta=dict(CLASSES=['a', 'b'])), ('a', 'b')),
    (dict(CLASSES=('a', 'b')), ('a', 'b')),  # before MMEngine
    (dict(dataset_meta=[dict(classes=('a', ))]), ()),  # of several datasets
    (dict(dataset_meta=None), ()), (None, ()), (['x'], ())])
def test_every_place_of_class_names(meta, expected):
    assert trained_classes(dict(meta=meta)) == expected
    assert trained_classes([]) == ()
