"""Statistics measured anew: what is validated and saved, and all else not."""
import copy
import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from ranks import on_two_ranks
from torch import nn

from mmadder.engine import PreciseBatchNormHook
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d

PICTURES, BATCH = 8, 2
HOOK = dict(type='PreciseBatchNormHook', num_samples=PICTURES)
AVERAGES = dict(type='EMAHook', momentum=.3)
BUFFERS = 'norm.running_mean', 'norm.running_var'


class Pictures:
    """Augmented with all generators, and with what earlier pictures were."""

    def __init__(self, augmented=True):
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randn(PICTURES, 3, 6, 6, generator=generator)
        self.augmented, self.earlier = augmented, 0.

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        picture = self.data[i]
        if self.augmented:
            noise = random.random() + np.random.rand() + torch.rand(())
            picture = picture * noise + self.earlier
            self.earlier = picture.mean().clip(-1, 1)
        return dict(inputs=picture)


class Model(BaseModel):
    """Losses that draw random numbers, and count their calls."""

    def __init__(self):
        super().__init__()
        self.conv = AdderConv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(.5)
        self.frozen = nn.BatchNorm2d(4)
        self.calls, self.tested = 0, []

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, mode='loss'):
        output = self.dropout(self.norm(self.conv(inputs)))
        output = self.frozen(output)
        if mode == 'loss':
            self.calls += 1
            target = self.calls + random.random() + torch.rand(())
            return dict(loss=(output - target).square().mean())
        self.tested.append(statistics(self.state_dict()))
        return [output.mean()]


class Score(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.append(data_samples[0].item())

    def compute_metrics(self, results):
        return dict(score=sum(results))


def statistics(state):
    return {key: state[key].clone() for key in BUFFERS}


def other_than_measured(state):
    return {key: value for key, value in state.items() if key not in BUFFERS}


def make(folder, *hooks, pictures=None, by_epoch=True, workers=0,
         resume=False, model=None, save_best=None, **options):
    torch.manual_seed(0)
    data = dict(dataset=pictures or Pictures(), batch_size=BATCH,
                num_workers=workers, persistent_workers=workers > 0,
                sampler=dict(type='DefaultSampler' if by_epoch else
                             'InfiniteSampler', shuffle=True),
                collate_fn=dict(type='default_collate'))
    loop = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(
        type='IterBasedTrainLoop', max_iters=6, val_interval=2)
    interval = 1 if by_epoch else 3
    options = dict(dict(
        model=model or Model(), work_dir=str(folder), resume=resume,
        experiment_name=str(folder), train_dataloader=data,
        val_dataloader=dict(
            data, num_workers=0, persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=Pictures(False)),
        val_cfg=dict(), val_evaluator=[Score()], train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1, momentum=.9)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=interval,
                            by_epoch=by_epoch, save_best=save_best,
                            rule=save_best and 'greater'), logger=None),
        custom_hooks=[dict(type='LossScaleHook'), *hooks],
        randomness=dict(seed=0)), **options)
    return Runner(**options)


def run(*args, **kwargs):
    runner = make(*args, **kwargs)
    runner.train()
    if workers := runner.train_dataloader._iterator:
        workers._shutdown_workers()  # the garbage collector waits for 5 s
    return runner


def load(path):
    return torch.load(path, weights_only=False)


def expected(state, batches=PICTURES // BATCH, rank=0, ranks=1,
             sampler=DefaultSampler):
    """Mean over batches of what the norm gets from pictures as they are."""
    sampler = sampler(Pictures(False), shuffle=True, seed=0)
    order = list(islice(sampler, PICTURES))[rank::ranks][:batches * BATCH]
    data = torch.stack([Pictures(False).data[i] for i in order])
    windows = nn.functional.unfold(data.double(), 3)  # (N, 27, 16)
    filters = state['conv.weight'].double().flatten(1)  # (4, 27)
    features = -(windows[:, None] - filters[None, :, :, None]).abs().sum(2)
    parts = features.unflatten(0, (batches, BATCH))
    var, mean = torch.var_mean(parts, (1, 3))
    return dict(zip(BUFFERS, (mean.mean(0), var.mean(0))))


def assert_measured(found, wanted):
    for key in BUFFERS:
        torch.testing.assert_close(
            found[key].double(), wanted[key], rtol=1e-5, atol=1e-5)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize('by_epoch, workers', [(True, 0), (True, 1),
                                               (False, 0), (False, 1)])
@pytest.mark.parametrize('averages', [[], [AVERAGES], [
    dict(AVERAGES, update_buffers=True)]], ids=['plain', 'EMA', 'buffers'])
def test_training_does_not_notice(tmp_path, by_epoch, workers, averages):
    """Weights, tracked statistics, averages and random numbers are equal."""
    ends = []
    for folder, hooks in (('without', []), ('with', [HOOK])):
        runner = run(tmp_path / folder, *averages, *hooks,
                     by_epoch=by_epoch, workers=workers)
        file = load(runner.message_hub.get_info('last_ckpt'))
        ends.append(dict(
            model=other_than_measured(runner.model.state_dict()),
            file=other_than_measured(file['state_dict']),
            tracked=file.get('ema_state_dict', {}),
            calls=runner.model.calls,
            numbers=[random.random(), np.random.rand(), torch.rand(())]))
    without, other = ends
    for part in ('model', 'file', 'tracked'):
        assert_equal(without[part], other[part])
    assert without['numbers'] == other['numbers']
    assert without['calls'] == other['calls'] > 0


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('averages', [[], [AVERAGES], [
    dict(AVERAGES, update_buffers=True)]], ids=['plain', 'EMA', 'buffers'])
def test_validation_and_files_have_the_statistics_of_their_weights(
        tmp_path, by_epoch, averages):
    runner = run(tmp_path, HOOK, *averages, by_epoch=by_epoch,
                 pictures=Pictures(False), save_best='toy/score')
    files = [load(path) for path in sorted(tmp_path.glob('*.pth'))]
    assert len(files) == 4  # the best one too
    for file in files:
        assert_measured(file['state_dict'], expected(
            file['state_dict'],
            sampler=DefaultSampler if by_epoch else InfiniteSampler))
    tested = runner.model.tested
    assert len(tested) == 3 * PICTURES // BATCH
    assert_equal(tested[-1], statistics(files[-1]['state_dict']))
    assert_equal(tested[0], tested[1])
    # In memory too, for a test in the same process.
    last = files[-1]['state_dict']
    averaged = next((hook.ema_model.module for hook in runner.hooks
                     if isinstance(hook, EMAHook)), runner.model)
    owner = averaged if averages and averages[0].get('update_buffers') \
        else runner.model
    assert_equal(statistics(owner.state_dict()), statistics(last))


def test_validation_with_batch_statistics(tmp_path):
    """The hook measured with norms that track nothing, and said nothing."""
    run(tmp_path, HOOK, dict(type='RobustInferenceHook'),
        by_epoch=False, pictures=Pictures(False), save_best='toy/score')
    for path in tmp_path.glob('*.pth'):
        state = load(path)['state_dict']
        assert_measured(state, expected(state, sampler=InfiniteSampler))


class Tracked(PreciseBatchNormHook):
    """What a training has tracked just before and after a validation."""

    def __init__(self):
        super().__init__(PICTURES)
        self.before, self.after = [], []

    def before_val(self, runner):
        self.before.append(copy.deepcopy(runner.model.state_dict()))
        super().before_val(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.after.append(copy.deepcopy(runner.model.state_dict()))
        super().before_train_iter(runner, batch_idx, data_batch)


def test_tracked_statistics_come_back(tmp_path):
    hook = Tracked()
    runner = run(tmp_path, hook)
    for before, after in zip(hook.before, hook.after[4::4]):
        assert_equal(before, after)
    assert len(hook.before) == 3
    model = runner.model
    assert not torch.equal(model.norm.running_mean,
                           hook.before[-1]['norm.running_mean'])
    for norm in (model.unused, model.frozen):
        assert not norm.running_mean.any() and (norm.running_var == 1).all()
    assert model.norm.num_batches_tracked == 12


def test_resume_is_the_same_as_going_on(tmp_path):
    class Plain(Model):

        def forward(self, inputs, mode='loss'):
            self.calls = -1
            self.dropout.p = 0
            random.seed(0), torch.manual_seed(0)
            return super().forward(inputs, mode)

    options = dict(pictures=Pictures(False))
    for hooks in ([HOOK], [HOOK, AVERAGES]):
        folder = tmp_path / str(len(hooks))
        run(folder, *hooks, model=Plain(), **options)
        whole = load(folder / 'epoch_3.pth')
        (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
        (folder / 'epoch_3.pth').unlink()
        run(folder, *hooks, model=Plain(), resume=True, **options)
        again = load(folder / 'epoch_3.pth')
        assert_equal(whole['state_dict'], again['state_dict'])


def test_no_more_pictures_than_asked_for(tmp_path):
    few = dict(HOOK, num_samples=BATCH + 1)  # whole batches
    runner = run(tmp_path, few, pictures=Pictures(False))
    state = runner.model.state_dict()
    assert_measured(state, expected(state, batches=2))


def test_without_validation(tmp_path):
    runner = run(tmp_path, HOOK, pictures=Pictures(False),
                 val_dataloader=None, val_cfg=None, val_evaluator=None)
    state = load(tmp_path / 'epoch_3.pth')['state_dict']
    assert_measured(state, expected(state))
    assert_equal(runner.model.state_dict(), state)


def test_with_annealing(tmp_path):
    """t of the weights is t of the copy that measures."""
    runner = run(tmp_path, HOOK, dict(
        type='AnnealingHook', start=0, end=.7), pictures=Pictures(False))
    first, last = (load(tmp_path / f'epoch_{i}.pth')['state_dict']
                   for i in (1, 3))
    assert 0 < first['conv.fraction'] < 1 == last['conv.fraction']
    assert_measured(last, expected(last))
    model = Model()
    model.load_state_dict(first)
    sampler = DefaultSampler(Pictures(False), shuffle=True, seed=0)
    batches = torch.stack([Pictures(False).data[i] for i in sampler])
    features = model.conv(batches).detach().unflatten(0, (-1, BATCH))
    torch.testing.assert_close(
        first['norm.running_mean'], features.mean((1, 3, 4)).mean(0))
    assert runner.model.conv.fraction == 1


def train_on_ranks(folder):
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None,
                   broadcast_buffers=False, find_unused_parameters=True)
    runner = run(folder, HOOK, pictures=Pictures(False), launcher='pytorch',
                 cfg=dict(model_wrapper_cfg=wrapper))
    dist.barrier()
    model = runner.model.module
    return dict(state=model.state_dict(), tested=model.tested[-1],
                file=load(folder / 'epoch_3.pth')['state_dict'])


def test_two_processes_share_the_mean(tmp_path):
    first, second = on_two_ranks(
        train_on_ranks, tmp_path / 'meet', tmp_path / 'work')
    state = first['file']
    parts = [expected(state, batches=2, rank=rank, ranks=2)
             for rank in range(2)]
    wanted = {key: (parts[0][key] + parts[1][key]) / 2 for key in BUFFERS}
    assert_measured(state, wanted)
    for rank in (first, second):
        for part in (rank['tested'], statistics(rank['state'])):
            assert_equal(part, statistics(state))


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain'])
def test_name_in_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(HOOKS.build(HOOK)) is PreciseBatchNormHook


def test_what_cannot_be_measured(tmp_path):
    with pytest.raises(InputError, match='at least 1, got 0'):
        PreciseBatchNormHook(0)
    model = Model()
    model.norm = model.unused = nn.Identity()
    with pytest.raises(InputError, match='no batch norm learns'):
        run(tmp_path / 'a', HOOK, model=model)
    loader = make(tmp_path / 'b').build_dataloader(dict(
        dataset=Pictures(), batch_size=2, sampler=dict(
            type='DefaultSampler', shuffle=False)))
    with pytest.raises(InputError, match='train_dataloader as a config'):
        run(tmp_path / 'c', HOOK, train_dataloader=loader)
    with pytest.raises(InputError, match='evaluate_on_origin=False'):
        run(tmp_path / 'd', HOOK, dict(
            type='mmpretrain.EMAHook', evaluate_on_origin=True))
    with pytest.raises(InputError, match='DataParallel cannot be copied'):
        PreciseBatchNormHook().before_train(SimpleNamespace(
            _train_dataloader={}, model=nn.DataParallel(Model())))
