"""Attacks on a tiny detector, and its mAP."""
import copy
import dataclasses
import json

import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from tiny_detector import TWIN, make_detector

from mmadder.errors import InputError
from mmadder.robustness import (
    Attack,
    Column,
    DetectionEvaluation,
    Pictures,
    PixelDetector,
    attacker_columns,
    unbounded_column,
)
from mmadder.robustness.detection import target


def test_loss_is_that_of_training(detector, annotated):
    """Boxes behind LoadAnnotations, Resize, as training has them."""
    _, cfg, network = detector
    images, samples = annotated
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


def test_target_by_hand(annotated):
    sample = annotated[1][0]
    before = copy.deepcopy(sample)
    instances = sample.gt_instances
    instances.bboxes.tensor[:] = torch.tensor([-4., 0., 40., 64.])
    found = target(sample).gt_instances
    assert found.bboxes.tolist() == [[0, 0, 50, 80]]  # 1.25 times, inside
    assert torch.equal(found.labels, before.gt_instances.labels)
    instances.bboxes.tensor[:] = torch.tensor([3., 5., 3.5, 9.])  # flat
    assert len(target(sample).gt_instances) == 0
    assert instances.bboxes.tensor.tolist() == [[3., 5., 3.5, 9.]]


def test_predictions_are_the_detectors(detector, annotated):
    """Those of MMDetection's own test step."""
    network = detector[2]
    images, samples = annotated
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
                network, attack, images, samples, (), seed=3, path=[])[
                    attack.steps]
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


def test_samplers_differ_by_call_but_not_by_run(detector, annotated):
    images, samples = annotated
    runs = []
    for _ in range(2):
        loss = detector[2].loss_of(samples, seed=1)
        runs.append([loss(images).item() for _ in range(3)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


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


def test_unconstrained_attack_failure(detector, monkeypatch):
    """Of a detector that finds all boxes, whatever the pixels; by the mAP of
    the first batch. Paths are of classifiers."""
    _, cfg, network = detector
    monkeypatch.setattr(PixelDetector, 'predict', lambda self, _, samples: [
        dict(bboxes=sample.gt_instances.bboxes.tensor.tolist(),
             scores=[.5] * len(sample.gt_instances),
             labels=sample.gt_instances.labels.tolist())
        for sample in samples])
    evaluation = DetectionEvaluation(
        network, Pictures(cfg), cfg.test_evaluator)
    entry = evaluation.measure('eval', unbounded_column())
    assert entry['images'] == len(Pictures(cfg).batches[0])
    assert entry['max_perturbation'] > .5 and 'path' not in entry
    evaluation.review(['eval'], Attack('FGSM'))
    text, = evaluation.results['warnings']['eval']
    assert text.startswith('unconstrained attack failure: BIM10 unbounded '
                           'leaves 100.0%')


def test_wrong_detectors(detector):
    model = copy.deepcopy(detector[2].model)
    model.train_cfg = None
    with pytest.raises(InputError, match='needs its train_cfg'):
        PixelDetector(model)
    with pytest.raises(InputError, match='Linear is no detector'):
        PixelDetector(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match='scored by VOCMetric'):
        DetectionEvaluation(detector[2], Pictures(detector[1]),
                            dict(type='CocoMetric'))
