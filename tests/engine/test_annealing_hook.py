"""From convolution to adder in MMEngine's runner."""
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from ranks import on_two_ranks
from torch import nn

from mmadder.engine import AnnealingHook
from mmadder.errors import InputError
from mmadder.inference import fuse_adder_bn
from mmadder.layers import AdderConv2d, adder_fraction
from mmadder.runs.comparison import compare
from mmadder.runs.losses import read_curves, summarize
from mmadder.runs.run import read_run

EPOCHS, ITERATIONS = 5, 4  # 20 iterations


class Model(BaseModel):

    def __init__(self):
        super().__init__()
        self.conv = AdderConv2d(3, 4, 3, weight_norm='AWN', center=True)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, inputs, mode='loss'):
        output = self.norm(self.conv(inputs))
        if mode == 'loss':
            return dict(loss=output.square().mean())
        return [output.mean()]


class Falling(BaseMetric):
    """Best in the first epoch, which is a convolution's."""
    default_prefix = 'toy'
    value = 100

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Falling.value -= 1
        return dict(score=Falling.value)


class Recorder(Hook):
    """t of the model, and of an average of it, in every iteration."""

    def __init__(self):
        self.seen, self.averages = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen[runner.iter] = adder_fraction(runner.model)

    def after_train_iter(self, runner, *args, **kwargs):
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                state = hook.ema_model.state_dict()
                self.averages[runner.iter] = (
                    state['module.conv.fraction'].item())


def run(folder, *hooks, epochs=EPOCHS, model=None, resume=False,
        start=0.25, end=0.75, param_scheduler=None, **options):
    recorder = Recorder()
    data = dict(dataset=[dict(inputs=torch.randn(3, 6, 6))
                         for _ in range(ITERATIONS)],
                batch_size=1, num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'))
    model = model or Model()
    runner = Runner(
        model=model, work_dir=str(folder), resume=resume,
        experiment_name=folder.name,
        train_dataloader=data, val_dataloader=data, val_cfg=dict(),
        val_evaluator=[Falling()],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        param_scheduler=param_scheduler,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1,
                            save_best='toy/score', rule='greater'),
            logger=dict(type='LoggerHook', interval=1)),
        visualizer=dict(type='Visualizer', name=folder.name, vis_backends=[
            dict(type='LocalVisBackend')]),
        custom_hooks=[
            dict(type='LossScaleHook'),
            dict(type='AnnealingHook', start=start, end=end, **options),
            *hooks, recorder])
    runner.train()
    return runner, recorder


def loaded(path):
    return torch.load(path, weights_only=False)['state_dict']['conv.fraction']


def test_whole_training(tmp_path):
    runner, recorder = run(tmp_path)
    expected = [min(1, max(0, (i / 20 - .25) / .5)) for i in range(20)]
    assert list(recorder.seen.values()) == pytest.approx(expected)
    assert loaded(tmp_path / 'epoch_2.pth') == pytest.approx(expected[7])
    assert loaded(tmp_path / 'epoch_5.pth') == 1
    lines = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    logged = [r['adder_fraction'] for r in records if 'toy/score' in r]
    assert logged == pytest.approx([expected[i] for i in (3, 7, 11, 15, 19)])
    assert next(r for r in records if 'loss' in r)['adder_fraction'] == 0


def test_best_is_of_adders(tmp_path):
    """Scores fall from the first epoch on; adders begin in the fourth."""
    run(tmp_path)
    best, = tmp_path.glob('best_*.pth')
    assert best.name == 'best_toy_score_epoch_4.pth' and loaded(best) == 1
    found = read_run(tmp_path)
    result = compare({'a': [found]})['runs']['a']['seeds'][0]
    scores = [record['toy/score'] for record in found.val]
    assert scores == sorted(scores, reverse=True)
    assert (result['best'], result['best_step']) == (scores[3], 4)
    assert result['final'] == scores[4]
    curve = summarize(read_curves(tmp_path), 'toy/score')
    assert (curve['best'], curve['best_step']) == (scores[3], 4)


class Stop(Hook):
    """As one does who sees that it is enough."""

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = runner.epoch == 2


def test_end_before_adders(tmp_path):
    run(tmp_path, Stop())
    assert not list(tmp_path.glob('best_*'))
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'THE TRAINING ENDS BEFORE ITS LAYERS ARE ADDERS, at ' \
        'adder_fraction 0.6' in log
    result = compare({'a': [read_run(tmp_path)]})
    seed = result['runs']['a']['seeds'][0]
    assert seed['final'] is None and seed['best'] is None
    assert 'still convolutions in part' in result['notes'][0]


def test_an_end_that_no_iteration_reaches(tmp_path):
    with pytest.raises(InputError, match='end=0.96 no iteration of 20 trains '
                       'adders, t ends at 0.986'):
        run(tmp_path, end=.96)
    assert run(tmp_path, end=.95)[1].seen[19] == 1


@pytest.mark.parametrize('needs, message', [
    (dict(hook=dict(type='EarlyStoppingHook', monitor='toy/score',
                    rule='greater', strict=True)), 'set strict=False'),
    (dict(param_scheduler=dict(
        type='ReduceOnPlateauLR', monitor='toy/score')), 'ReduceOnPlateau'),
])
def test_what_needs_each_validation_is_refused(tmp_path, needs, message):
    """Those of convolutions are not to be counted."""
    hooks = [needs['hook']] if 'hook' in needs else []
    with pytest.raises(InputError, match=message):
        run(tmp_path, *hooks, param_scheduler=needs.get('param_scheduler'))


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averages_of_weights_have_the_same_fraction(tmp_path,
                                                    update_buffers):
    _, recorder = run(tmp_path, dict(
        type='EMAHook', momentum=.1, update_buffers=update_buffers))
    assert recorder.averages == recorder.seen
    assert loaded(tmp_path / 'epoch_5.pth') == 1


def test_resume(tmp_path):
    whole, _ = run(tmp_path / 'whole')
    for path in (tmp_path / 'whole').glob('epoch_*.pth'):
        if path.name not in ('epoch_1.pth', 'epoch_2.pth'):
            path.unlink()
    (tmp_path / 'whole/last_checkpoint').write_text(
        str(tmp_path / 'whole/epoch_2.pth'))
    again, recorder = run(tmp_path / 'whole', resume=True)
    assert min(recorder.seen) == 8
    assert recorder.seen[8] == pytest.approx((8 / 20 - .25) / .5)
    assert loaded(tmp_path / 'whole/epoch_5.pth') == 1


def train_on_a_rank(folder):
    runner, recorder = run(folder, model=MMDistributedDataParallel(Model()))
    return dict(seen=list(recorder.seen.values()),
                state=runner.model.module.state_dict())


def test_a_test_after_the_training_is_of_adders(tmp_path):
    """In the runner that trained, where nothing is loaded again."""
    runner, recorder = run(tmp_path)
    runner._test_dataloader = runner._val_dataloader
    runner._test_evaluator = [Falling()]
    runner._test_loop = dict()
    runner.test()
    assert adder_fraction(runner.model) == 1


def test_two_processes(tmp_path):
    first, second = on_two_ranks(
        train_on_a_rank, tmp_path / 'ranks', tmp_path / 'work')
    assert first['seen'] == second['seen'] and first['seen'][-1] == 1
    for key, value in first['state'].items():
        if 'norm' not in key:  # statistics are each process's own
            assert torch.equal(value, second['state'][key]), key
    assert loaded(tmp_path / 'work/epoch_5.pth') == 1


def test_step_and_options(tmp_path):
    runner, recorder = run(tmp_path, start=.5, end=.5,
                           center_convolution=True, scale_gradient=False)
    assert list(recorder.seen.values()) == [0] * 10 + [1] * 10
    assert runner.model.conv.center_convolution
    assert not runner.model.conv.scale_gradient


def test_a_model_without_adders(tmp_path):
    model = Model()
    model.conv = nn.Conv2d(3, 4, 3)
    with pytest.raises(InputError, match='no AdderConv2d that could be led'):
        run(tmp_path, model=model)


def test_a_test_of_a_model_whose_adders_are_fused():
    model = fuse_adder_bn(nn.Sequential(AdderConv2d(3, 4, 3)).eval())
    AnnealingHook(0, .5).before_run(SimpleNamespace(model=model))


@pytest.mark.parametrize('start, end', [(-.1, 1), (.6, .5), (0, 1.1)])
def test_bad_range(start, end):
    with pytest.raises(InputError, match='0 <= start <= end <= 1'):
        AnnealingHook(start, end)


def test_weights_on_the_way_need_the_hook(tmp_path):
    """A converted CNN would stay one in silence."""
    model = Model()
    model.conv.set_adder_fraction(0)
    runner = Runner(
        model=model, work_dir=str(tmp_path), experiment_name='without',
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(3, 6, 6))], num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1, collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        custom_hooks=[dict(type='LossScaleHook')])
    with pytest.raises(InputError, match='not of adders yet.*AnnealingHook'):
        runner.train()
