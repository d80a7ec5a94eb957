"""Attacks on a tiny detector, its mAP, and the tool."""
import copy
import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError
from mmadder.models import build_model
from mmadder.robustness import (
    Attack,
    Column,
    DetectionEvaluation,
    LossLogits,
    Pictures,
    PixelDetector,
    attacker_columns,
    check_detector,
    robust_inference,
    table_columns,
    write_merged,
)
from mmadder.robustness.detection import target

ROOT = Path(__file__).parents[2]
BASE = ROOT / 'configs/digits/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_' \
    'digits.py'
# Pictures of 64x64 become 80x80, are padded to 96x96, and their boxes stay.
CONFIG = f'''
_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(init_cfg=None, stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32)))
resize = dict(type='Resize', scale=(80, 80), keep_ratio=True)
pipeline = _base_.test_pipeline
pipeline[1] = resize
test_dataloader = dict(batch_size=2, dataset=dict(pipeline=pipeline))
'''
TWIN = '''
model['backbone']['conv_cfg'] = None
model['neck']['conv_cfg'] = None
'''


def make_detector(folder, root, text=''):
    """Config, checkpoint and model with statistics of the pictures."""
    (folder / 'tiny.py').write_text(CONFIG + text)
    cfg = Config.fromfile(folder / 'tiny.py')
    cfg.test_dataloader.dataset.data_root = str(root)
    torch.manual_seed(0)
    model = build_model(cfg)
    network = PixelDetector(model)
    images, _ = Pictures(cfg, batch_size=3).load(0)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train().features(images)
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    return folder, cfg, network.eval()


@pytest.fixture(scope='session')
def detector(digits, tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp('detector'), digits)


@pytest.fixture
def batch(detector):
    """Two pictures and their annotations."""
    return Pictures(detector[1]).load(0)


def test_loss_is_that_of_training(detector, batch):
    """Boxes behind LoadAnnotations, Resize, as training has them."""
    _, cfg, network = detector
    images, samples = batch
    assert images.shape == (2, 3, 80, 80)
    load, resize, boxes, pack = cfg.test_dataloader.dataset.pipeline
    training = dict(cfg.test_dataloader.dataset, test_mode=False,
                    pipeline=[load, boxes, resize, pack])
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(training)
    items = [dataset[i] for i in range(2)]
    data = network.model.data_preprocessor(dict(
        inputs=[item['inputs'] for item in items],
        data_samples=[item['data_samples'] for item in items]))
    assert data['inputs'].shape == (2, 3, 96, 96)
    torch.manual_seed(0)
    losses = network.model(**data, mode='loss')
    expected = network.model.parse_losses(losses)[0]
    found = network.loss_of(samples, seed=0)(images)
    torch.testing.assert_close(found, expected)


def test_target_by_hand(batch):
    sample = batch[1][0]
    before = copy.deepcopy(sample)
    instances = sample.gt_instances
    instances.bboxes.tensor[:] = torch.tensor([-4., 0., 40., 64.])
    found = target(sample).gt_instances
    assert found.bboxes.tolist() == [[0, 0, 50, 80]]  # 1.25 times, inside
    assert torch.equal(found.labels, before.gt_instances.labels)
    instances.bboxes.tensor[:] = torch.tensor([3., 5., 3.5, 9.])  # flat
    assert len(target(sample).gt_instances) == 0
    assert instances.bboxes.tensor.tolist() == [[3., 5., 3.5, 9.]]


def test_predictions_are_the_detectors(detector, batch):
    """Those of MMDetection's own test step."""
    network = detector[2]
    images, samples = batch
    pictures = (images * 255).round().byte()
    with torch.no_grad():
        expected = network.model.test_step(dict(
            inputs=list(pictures), data_samples=copy.deepcopy(samples)))
        found = network.predict(images, samples)
    for one, other in zip(found, expected):
        assert len(one['scores']) == len(other.pred_instances) > 0
        torch.testing.assert_close(
            torch.tensor(one['scores']), other.pred_instances.scores)
        torch.testing.assert_close(
            torch.tensor(one['bboxes']), other.pred_instances.bboxes,
            rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('twin', [False, True])
@pytest.mark.parametrize('mode', ['eval', 'R'])
def test_attacks_on_the_loss(digits, tmp_path, mode, twin):
    """In ball and range, the same for the same seed, strong on the twin.

    Gradients of untrained adders, being no derivatives, need not lead up.
    """
    _, cfg, network = make_detector(
        tmp_path, digits, TWIN if twin else '')
    images, samples = Pictures(cfg).load(0)
    before = copy.deepcopy(network.state_dict())
    evaluation = DetectionEvaluation(
        network, Pictures(cfg), cfg.test_evaluator)
    losses = []
    with evaluation.inference(mode):
        losses.append(network.loss_of(samples)(images).item())
        for name in ('FGSM', 'PGD'):
            attack = Attack(name)
            made = [evaluation.attack(
                network, attack, images, samples, (), seed=3)[attack.steps]
                for _ in range(2)]
            assert torch.equal(*made)
            assert made[0].shape == images.shape
            assert 0 < (made[0] - images).abs().max() <= 8 / 255 + 1e-6
            assert made[0].min() >= 0 and made[0].max() <= 1
            losses.append(network.loss_of(samples)(made[0]).item())
    assert not twin or losses == sorted(losses)
    assert all(torch.equal(value, before[key])
               for key, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None
               for p in network.parameters())


def test_samplers_differ_by_call_but_not_by_run(detector, batch):
    images, samples = batch
    runs = []
    for _ in range(2):
        loss = detector[2].loss_of(samples, seed=1)
        runs.append([loss(images).item() for _ in range(3)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


def test_batches_are_of_one_size(detector, digits, tmp_path):
    shutil.copytree(digits / 'VOC2007', tmp_path / 'VOC2007')
    picture = tmp_path / 'VOC2007/JPEGImages/test_0.jpg'
    cv2.imwrite(str(picture), cv2.imread(str(picture))[:48])
    annotation = tmp_path / 'VOC2007/Annotations/test_0.xml'
    annotation.write_text(annotation.read_text().replace(
        '<height>64', '<height>48'))
    cfg = copy.deepcopy(detector[1])
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    pictures = Pictures(cfg)
    assert pictures.batches == [[0], [1, 2]]
    assert pictures.load(0)[0].shape == (1, 3, 60, 80)
    assert Pictures(cfg, batch_size=1).batches == [[0], [1], [2]]
    assert pictures.digest != Pictures(detector[1]).digest
    assert Pictures(detector[1], count=2).size == 2
    assert Pictures(detector[1]).digest == Pictures(detector[1]).digest


def test_map_is_vocs(detector, monkeypatch):
    """Perfect boxes give 1, none 0, one class of three a third."""
    _, cfg, network = detector
    missed = set()

    def predict(self, images, samples):
        found = []
        for sample in samples:
            boxes, labels = (sample.gt_instances[key]
                             for key in ('bboxes', 'labels'))
            kept = torch.tensor([
                label not in missed for label in labels.tolist()])
            found.append(dict(
                bboxes=boxes.tensor[kept].tolist(),
                scores=[.5] * int(kept.sum()),
                labels=labels[kept].tolist()))
        return found

    monkeypatch.setattr(PixelDetector, 'predict', predict)
    for labels, expected in (((), 1), ((0, 1, 2), 0), ((1, 2), 1 / 3)):
        missed.clear()
        missed.update(labels)
        evaluation = DetectionEvaluation(
            network, Pictures(cfg), cfg.test_evaluator)
        entry = evaluation.measure('eval', Column())
        assert entry['mAP'] == pytest.approx(expected)
        assert entry['images'] == 3
        assert set(entry['metrics']) == {'pascal_voc/mAP', 'pascal_voc/AP50'}


def test_goes_on_where_it_was_interrupted(detector, tmp_path):
    _, cfg, network = detector
    columns = [Column(), Column(Attack('FGSM', eps=.05))]

    def evaluation(path):
        return DetectionEvaluation(
            network, Pictures(cfg), cfg.test_evaluator, path=path)

    def interrupt(jobs):
        yield from jobs[:3]
        raise KeyboardInterrupt

    path, lines = tmp_path / 'a.json', tmp_path / 'a.json.predictions.jsonl'
    lines.write_text('of another run')
    with pytest.raises(KeyboardInterrupt):
        evaluation(path).run(['eval'], columns, interrupt)
    assert list(json.loads(path.read_text())['rows']['eval']) == ['Clean']
    with lines.open('a') as file:
        file.write('{"half a li')
    done = []
    again = evaluation(path)
    again.run(['eval'], columns, lambda jobs: done.extend(jobs) or jobs)
    assert [(job.batch, job.column.label) for job in done] == [(1, 'FGSM')]
    whole = evaluation(None)
    whole.run(['eval'], columns)
    assert again.results['rows'] == whole.results['rows']
    assert json.loads(path.read_text()) == again.results
    with pytest.raises(InputError, match='FGSM with other settings'):
        evaluation(path).run(['eval'], [Column(Attack('FGSM'))])


def test_attackers_of_mode_r(detector, monkeypatch):
    """Eval-made images are those of mode eval, made once for both modes."""
    _, cfg, network = detector
    evaluation = DetectionEvaluation(
        network, Pictures(cfg, count=2), cfg.test_evaluator)
    made = []
    attack = evaluation.attack
    monkeypatch.setattr(evaluation, 'attack', lambda *args: made.append(
        args[1].label) or attack(*args))
    columns = [dataclasses.replace(column, attack=Attack('PGD', steps=2))
               for column in attacker_columns()]
    evaluation.run(['eval', 'R', 'r'],
                   [Column(), Column(Attack('PGD', steps=2)), *columns])
    assert made == ['PGD2'] * 5  # eval; white-box and detached of R and r
    assert list(evaluation.results['rows']['eval']) == ['Clean', 'PGD2']
    assert list(evaluation.results['rows']['r']) == [
        'Clean', 'PGD2', 'PGD2 detached', 'PGD2 eval-made']


def test_checks(detector, batch):
    network = detector[2]
    assert check_detector(network, *batch) == []
    with robust_inference(network, 'R'):
        found = check_detector(network, *batch)
    assert [text.split(':')[0] for text in found] == ['batch dependence']


def run_tool(monkeypatch, *args):
    path = str(ROOT / 'tools' / 'robustness.py')
    monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
    runpy.run_path(path, run_name='__main__')


def test_tool_end_to_end(detector, digits, monkeypatch, capsys, tmp_path):
    folder, _, _ = detector
    arguments = (folder / 'tiny.py', folder / 'tiny.pth', '--data-root',
                 digits, '--attacks', 'FGSM', 'PGD')
    for name in ('a', 'b'):
        run_tool(monkeypatch, *arguments, '--modes', 'eval', 'R', '--name',
                 name, '--images', 2, '--transfer-from', folder / 'tiny.py',
                 folder / 'tiny.pth', '--json', tmp_path / f'{name}.json')
    lines = capsys.readouterr().out.splitlines()
    assert '| network | Clean | FGSM | PGD7 | PGD7 transfer | PGD7 detached ' \
        '| PGD7 eval-made |' in lines
    assert [line.split(' | ')[0] for line in lines
            if line.startswith('| b')] == ['| b', '| b-R']
    first, second = (json.loads((tmp_path / f'{name}.json').read_text())
                     for name in 'ab')
    assert first['rows'] == second['rows']  # the seed decides
    assert first['settings']['metric'] == 'mAP'
    table, written = write_merged(
        [tmp_path / 'a.json', tmp_path / 'b.json'], tmp_path / 'out')
    assert [path.name for path in written] == [
        'detection_table.md', 'detection_features.png']
    layers = first['features']['R']['FGSM']
    assert {'backbone.bn1', 'neck.fpn_convs.0.bn'} <= {
        layer['layer'].removeprefix('model.') for layer in layers}
    assert len(table.splitlines()) == 6
    for wrong, message in (
            (('--square', ), 'Square needs the logits of a classifier'),
            (('--images', 4), '4 images were asked for, the test set has 3'),
            (('--recalibrate', 2), '--recalibrate is for classifiers')):
        with pytest.raises(SystemExit):
            run_tool(monkeypatch, *arguments, *wrong)
        assert message in capsys.readouterr().err


def test_wrong_configs(detector):
    cfg = copy.deepcopy(detector[1])
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1], pipeline[2] = pipeline[2], pipeline[1]
    with pytest.raises(InputError, match='must come behind Resize'):
        Pictures(cfg)
    del pipeline[1]
    with pytest.raises(InputError, match='has no LoadAnnotations'):
        Pictures(cfg)
    with pytest.raises(InputError, match='batch size must be positive'):
        Pictures(detector[1], batch_size=-1)
    model = copy.deepcopy(detector[2].model)
    model.train_cfg = None
    with pytest.raises(InputError, match='needs its train_cfg'):
        PixelDetector(model)
    with pytest.raises(InputError, match='Linear is no detector'):
        PixelDetector(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match='scored by VOCMetric'):
        DetectionEvaluation(detector[2], Pictures(detector[1]),
                            dict(type='CocoMetric'))
    with pytest.raises(InputError, match='Flatten is to return a loss'):
        LossLogits(torch.nn.Flatten())(torch.rand(2, 3, 4, 4))
    assert len(table_columns(names=('FGSM', ))) == 2
