"""The report beside the log of a detection run."""
import json

import cv2
import pytest
import torch
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmadder import cli
from mmadder.analysis import DetectionReportHook

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))]
CLASSES = tuple('012')
VOC = dict(ann_file='ImageSets/Main/val.txt',
           data_prefix=dict(sub_data_root=''))
DATASETS = dict(
    CheckedXMLDataset=VOC, VOCDataset=VOC,
    CocoDataset=dict(ann_file='coco.json',
                     data_prefix=dict(img='JPEGImages/')))


@MODELS.register_module()
class Clairvoyant(BaseModel):
    """Finds every object that the sample has, and one that is not there."""

    def __init__(self, predicts=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.predicts = predicts

    def forward(self, inputs, data_samples, mode):
        if mode == 'loss':
            return dict(loss=(self.weight**2).sum())
        samplelist_boxtype2tensor(data_samples)
        results = []
        for sample in data_samples:
            found = InstanceData()
            found.bboxes = torch.cat([sample.gt_instances.bboxes,
                                      torch.tensor([[0., 0, 5, 5]])])
            found.labels = torch.cat([sample.gt_instances.labels,
                                      torch.tensor([0])])
            found.scores = torch.linspace(.9, .6, len(found.labels))
            result = DetDataSample(metainfo=sample.metainfo)
            result.gt_instances = sample.gt_instances
            result.ignored_instances = sample.ignored_instances
            if self.predicts:
                result.pred_instances = found
            results.append(result)
        return results


@HOOKS.register_module()
class MetricsSeen(Hook):
    """Count the metrics of each validation."""
    counts = []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.counts.append(len(runner.val_loop.evaluator.metrics))


@pytest.fixture
def runner(voc, tmp_path):
    """Return a function that builds a runner of two epochs."""
    voc.joinpath('coco.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'val_{i}.jpg', height=64, width=64)
                for i in range(3)],
        annotations=[dict(id=i, image_id=i, bbox=[9, 9, 20, 20], area=400,
                          category_id=i, iscrowd=0) for i in range(3)],
        categories=[dict(id=i, name=str(i)) for i in range(3)])))
    MetricsSeen.counts.clear()

    def build(kind='CheckedXMLDataset', predicts=True, loop=None, **kwargs):
        metric = dict(type='CocoMetric', ann_file=str(voc / 'coco.json')) \
            if kind == 'CocoDataset' else dict(type='VOCMetric')
        loader = dict(
            batch_size=2, num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type=kind, data_root=f'{voc}/', metainfo=dict(
                    classes=CLASSES), pipeline=PIPELINE, test_mode=True,
                **DATASETS[kind]))
        return Runner.from_cfg(Config(dict(
            model=dict(type='Clairvoyant', predicts=predicts),
            work_dir=str(tmp_path),
            train_dataloader=loader, val_dataloader=loader,
            test_dataloader=loader, train_cfg=loop or dict(
                by_epoch=True, max_epochs=2),
            val_cfg=dict(), test_cfg=dict(), val_evaluator=metric,
            test_evaluator=metric, default_scope='mmdet',
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
            default_hooks=dict(
                report=dict(type=DetectionReportHook.__name__, **kwargs),
                logger=dict(type='LoggerHook', interval=1)),
            custom_hooks=[dict(type='MetricsSeen')],
            visualizer=dict(type='Visualizer', name=str(tmp_path),
                            vis_backends=[dict(type='LocalVisBackend')]),
            # A logger of an old name would write to an earlier test's file.
            experiment_name=tmp_path.name)))

    return build


def pages(tmp_path):
    return list(tmp_path.glob('*/report/index.html'))


def test_training_ends_with_a_report(runner, tmp_path):
    runner().train()
    assert MetricsSeen.counts == [1, 1, 2, 2]  # two batches a validation
    page, = pages(tmp_path)
    text = page.read_text()
    assert 'on 3 validation pictures with 3 objects' in text
    for name in ('precision_recall', 'training', 'confusion', 'predictions'):
        assert f'src="{name}.png"' in text
        assert cv2.imread(str(page.parent / f'{name}.png')).std() > 5
    summary = json.loads((page.parent / 'summary.json').read_text())
    assert summary['mAP'] == 1 and summary['pictures'] == 3
    assert summary['split'] == 'validation'


@pytest.mark.parametrize('kind', DATASETS)
def test_every_test_has_a_report(runner, tmp_path, kind):
    run = runner(kind)
    run.test()
    assert len(run.test_evaluator.metrics) == 1
    page, = pages(tmp_path)
    text = page.read_text()
    assert 'on 3 test pictures with 3 objects' in text
    assert 'training.png' not in text
    summary = json.loads((page.parent / 'summary.json').read_text())
    assert summary['mAP'] == 1
    assert set(summary['classes']) == set(CLASSES)


def test_training_by_iterations(runner, tmp_path):
    runner(loop=dict(by_epoch=False, max_iters=4, val_interval=2)).train()
    assert MetricsSeen.counts == [1, 1, 2, 2]
    assert len(pages(tmp_path)) == 1


def test_switched_off(runner, tmp_path):
    runner(enable=False).train()
    assert MetricsSeen.counts == [1] * 4 and not pages(tmp_path)


def test_missing_boxes_are_one_line_in_the_log(runner, tmp_path):
    run = runner(predicts=False)
    run.test_evaluator.metrics.clear()  # VOCMetric needs boxes
    run.test()
    log, = tmp_path.glob('*/*.log')
    lines = [line for line in log.read_text().splitlines()
             if 'No detection report' in line]
    assert len(lines) == 1 and 'predicts no boxes' in lines[0]
    assert not pages(tmp_path)


def test_pictures_that_are_gone_do_not_end_the_run(runner, voc, tmp_path):
    run = runner()
    metric, = run.test_loop.evaluator.metrics  # has read the annotations

    def forget(*_, **__):
        for path in (voc / 'JPEGImages').iterdir():
            path.unlink()

    metric.compute_metrics = lambda results: forget() or {}
    run.test()
    log, = tmp_path.glob('*/*.log')
    assert 'No detection report: picture' in log.read_text()


@pytest.mark.parametrize('damage, message', [
    (lambda dataset: dataset._metainfo.pop('classes'), 'names no classes'),
    (lambda dataset: dataset._metainfo.update(classes=['x'] * 101),
     '101 classes are too many'),
    (lambda dataset: setattr(dataset, 'get_data_info', lambda i: dict(
        img_id=i, img_path='', instances=[dict(mask=[])])),
     'has no annotated boxes')])
def test_other_data_do_not_end_the_run(runner, tmp_path, damage, message):
    run = runner()
    dataset = run.test_loop.dataloader.dataset
    run.test_loop.evaluator.metrics[0].compute_metrics = \
        lambda results: damage(dataset) and {} or {}
    run.test()
    log, = tmp_path.glob('*/*.log')
    line, = [line for line in log.read_text().splitlines()
             if 'No detection report' in line]
    assert message in line
    assert not pages(tmp_path)


def test_tools_report_on_every_detector(tmp_path):
    """MMDetection's own configs do not ask for it."""

    def hooks(base, text=''):
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = '{base}'\n{text}")
        args = cli.make_parser('').parse_args([str(path)])
        return cli.runner_config(args, ()).default_hooks

    coco = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    assert hooks(coco)['report'] == dict(type='DetectionReportHook')
    assert hooks(coco)['logger']['type'] == 'LoggerHook'
    assert hooks(coco, 'default_hooks = dict(report=None)')['report'] is None
    assert 'report' not in hooks(
        coco, "custom_hooks = [dict(type='DetectionReportHook')]")
    assert 'report' not in hooks('mmpretrain::resnet/resnet18_8xb32_in1k.py')
