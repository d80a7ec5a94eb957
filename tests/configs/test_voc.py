"""The configs of Table 2 on VOC 07+12 say what the paper says."""

from pathlib import Path

import mmengine.dataset.sampler
import pytest
from mmdet.datasets import VOCDataset
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.layers import AWN, WS, AdderConv2d
from mmadder.models import AdderPAFPN

VOC = Path(__file__).parents[2] / 'configs' / 'voc'
END = '_4xb4-12e_voc0712.py'
VARIANTS = ('cnn', 'ann', 'ann-ws', 'ann-awn')
ABLATIONS = {path.name.removesuffix(END): path
             for path in sorted((VOC / 'ablations').glob('*.py'))}
PICTURES = dict(VOC2007=5011, VOC2012=11540)  # of trainval


def row(variant):
    return Config.fromfile(
        VOC / f'faster-rcnn_{variant}-r18_{variant}-fpn{END}')


def ablation(name):
    return Config.fromfile(
        ABLATIONS[f'faster-rcnn_ann-awn-r18_ann-awn-{name}'])


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model)


def modules(parent, kind):
    return [m for m in parent.modules() if isinstance(m, kind)]


def difference(ours, other, prefix=''):
    """Return the dotted keys in which two nested dicts differ."""
    if not (isinstance(ours, dict) and isinstance(other, dict)):
        return set() if ours == other else {prefix}
    return set().union(*(
        difference(ours.get(key), other.get(key), f'{prefix}.{key}'.strip('.'))
        for key in {**ours, **other}))


@pytest.mark.parametrize('variant', VARIANTS)
def test_rows_differ_in_layers_and_pretraining_only(variant):
    cfg = row(variant)
    model = cfg.model
    assert difference(row('ann-awn').to_dict(), cfg.to_dict()) <= {
        'conv_cfg', 'model.backbone.conv_cfg', 'model.neck.conv_cfg',
        'model.backbone.init_cfg.checkpoint'}
    assert model.backbone.init_cfg == dict(
        type='Pretrained', prefix='backbone.',
        checkpoint=f'work_dirs/{variant}-resnet18_8xb32_in1k/epoch_150.pth')
    detector = build(cfg)
    layers = modules(detector.backbone, (nn.Conv2d, AdderConv2d))
    layers += modules(detector.neck, (nn.Conv2d, AdderConv2d))
    adders = modules(detector, AdderConv2d)
    assert len(layers) == 28
    assert len(adders) == (0 if variant == 'cnn' else 27)
    norm = {'ann-ws': WS, 'ann-awn': AWN}.get(variant, type(None))
    for adder in adders:
        assert type(adder.awn or adder.ws) is norm
        assert adder.eta == 0.2
        assert adder.awn is None or not adder.awn.upsilon.any()
    norms = modules(detector.train(), _BatchNorm)
    assert all(m.training and m.weight.requires_grad for m in norms)
    assert detector.neck.shortcut
    assert detector.roi_head.bbox_head.num_classes == 20


def test_schedule_is_the_papers():
    cfg = row('ann-awn')
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.008, momentum=0.9, weight_decay=1e-4)
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        norm_decay_mult=1,
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)})
    assert cfg.train_cfg == dict(
        type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
    warmup, cosine = cfg.param_scheduler
    assert (warmup.type, warmup.end, warmup.by_epoch) == (
        'LinearLR', 500, False)
    assert cosine == dict(type='CosineAnnealingLR', T_max=12, end=12,
                          convert_to_iter_based=True)
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=False)


def test_data_and_metrics():
    cfg = row('ann-awn')
    assert cfg.classes == VOCDataset.METAINFO['classes']
    for evaluators in (cfg.val_evaluator, cfg.test_evaluator):
        assert {metric.prefix: metric.eval_mode for metric in evaluators} == {
            'pascal_voc': '11points', 'pascal_voc_area': 'area'}
        assert all(metric.iou_thrs == 0.5 for metric in evaluators)
    assert cfg.default_hooks.checkpoint.save_best == 'pascal_voc/mAP'
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.ann_file == 'VOC2007/ImageSets/Main/test.txt'
        assert loader.dataset.data_prefix.sub_data_root == 'VOC2007/'


class Sizes:
    """As many pictures as VOC 07+12 has, upright and lying."""

    def __len__(self):
        return sum(PICTURES.values())

    def get_data_info(self, i):
        return dict(width=500, height=375 if i % 3 else 667)


@pytest.mark.parametrize('gpus, iterations', [(4, 1035), (1, 4138)])
def test_iterations_per_epoch(monkeypatch, gpus, iterations):
    """Guard issue 5: MMDetection's base repeats the set three times.

    Every entry of the splits is used once an epoch: the filter only drops
    pictures without objects, of which VOC has none.
    """
    cfg = row('ann-awn').train_dataloader
    assert cfg.dataset.type == 'ConcatDataset'
    assert [part.ann_file for part in cfg.dataset.datasets] == [
        f'{year}/ImageSets/Main/trainval.txt' for year in PICTURES]
    for part in cfg.dataset.datasets:
        assert part.type == 'CheckedXMLDataset'
        assert part.filter_cfg == dict(filter_empty_gt=True)
        assert not part.get('indices')
    monkeypatch.setattr(mmengine.dataset.sampler, 'get_dist_info',
                        lambda: (0, gpus))
    with DefaultScope.overwrite_default_scope('mmdet'):
        sampler = DATA_SAMPLERS.build(
            cfg.sampler, default_args=dict(dataset=Sizes(), seed=0))
        batches = DATA_SAMPLERS.build(cfg.batch_sampler, default_args=dict(
            sampler=sampler, batch_size=cfg.batch_size))
    assert len(batches) == iterations
    assert len(list(batches)) == iterations
    assert -(-16551 // (gpus * 4)) == iterations


def test_devkit_is_read_once(devkit, monkeypatch):
    cfg = row('ann-awn')
    for part in cfg.train_dataloader.dataset.datasets:
        part.data_root = str(devkit)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    paths = [dataset.get_data_info(i)['img_path']
             for i in range(len(dataset))]
    assert len(paths) == len(set(paths)) == 6
    assert sum('VOC2012' in path for path in paths) == 4


@pytest.mark.parametrize('name, keys', [
    ('fpn_frozen-bn', {'model.backbone.norm_eval'}),
    ('fpn_no-shortcut', {'model.neck.shortcut'}),
    ('pafpn', {'model.neck.type'}),
    ('fpn_cnn-4conv1fc', {'model.roi_head.bbox_head.type',
                          'model.roi_head.bbox_head.norm_cfg'}),
    ('fpn_ann-awn-4conv1fc', {'model.roi_head.bbox_head.type',
                              'model.roi_head.bbox_head.norm_cfg',
                              'model.roi_head.bbox_head.conv_cfg'})])
def test_ablations_hold_their_difference_only(name, keys):
    assert len(ABLATIONS) == 5
    assert difference(
        row('ann-awn').to_dict(), ablation(name).to_dict()) == keys


def test_frozen_norms_are_those_of_the_backbone():
    detector = build(ablation('fpn_frozen-bn')).train()
    assert not any(m.training for m in modules(detector.backbone, _BatchNorm))
    assert all(m.training for m in modules(detector.neck, _BatchNorm))


def test_box_heads_differ_in_their_layers_only():
    heads = [build(ablation(f'fpn_{kind}-4conv1fc')).roi_head.bbox_head
             for kind in ('cnn', 'ann-awn')]
    convs, adders = (modules(head, (nn.Conv2d, AdderConv2d)) for head in heads)
    assert [type(m) for m in convs] == [nn.Conv2d] * 4
    assert [type(m) for m in adders] == [AdderConv2d] * 4
    assert all(m.awn is not None for m in adders)
    assert [m.weight.shape for m in convs] == [m.weight.shape for m in adders]
    assert all(len(modules(head, nn.BatchNorm2d)) == 4 for head in heads)


def test_path_aggregation_has_33_adders():
    detector = build(ablation('pafpn'))
    assert type(detector.neck) is AdderPAFPN
    assert len(modules(detector, AdderConv2d)) == 19 + 14


@pytest.mark.parametrize('variant', VARIANTS)
def test_backbone_fits_the_pretraining_config(variant):
    init_cfg = row(variant).model.backbone.init_cfg
    folder, file = Path(init_cfg.checkpoint).parts[1:]
    cfg = Config.fromfile(VOC.parent / 'imagenet' / f'{folder}.py')
    assert file == f'epoch_{cfg.train_cfg.max_epochs}.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pretrained = MODELS.build(cfg.model.backbone).state_dict()
    own = build(row(variant)).backbone.state_dict()
    assert {key: x.shape for key, x in pretrained.items()} == {
        key: x.shape for key, x in own.items()}


def test_readme_lists_every_config():
    readme = (VOC / 'README.md').read_text()
    for path in VOC.rglob('*.py'):
        assert f'({path.relative_to(VOC)})' in readme
