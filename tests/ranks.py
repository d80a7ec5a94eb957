"""Two processes with gloo on the CPU, and a small training to run on them."""
import contextlib
import datetime
import multiprocessing
import os

import torch
import torch.distributed as dist
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.functional import relu

from mmadder.layers import AdderConv2d, set_averaging_group, set_loss_scale

ETA = .3
LR = .1
TIMEOUT = 60
# Forking is fast, but not allowed once autograd has used a GPU.
CONTEXT = multiprocessing.get_context(
    'forkserver' if torch.cuda.is_available() else 'fork')


def on_two_ranks(function, folder, *args, **kwargs):
    """Return the results of a function on two ranks.

    Args:
        function (callable): importable; returns what torch.save takes.
        folder (Path): where they meet and leave their results.
    """
    folder.mkdir()
    ranks = [CONTEXT.Process(target=_work,
                             args=(rank, folder, function, args, kwargs))
             for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(TIMEOUT)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    return [torch.load(folder / f'rank{rank}.pt') for rank in range(2)]


def _work(rank, folder, function, args, kwargs):
    torch.set_num_threads(1)  # a fork has lost the threads of its parent
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting_point', rank=rank,
        world_size=2, timeout=datetime.timedelta(seconds=TIMEOUT))
    torch.save(function(*args, **kwargs), folder / f'rank{rank}.pt')
    dist.destroy_process_group()


class Net(BaseModel):
    """Two adders with frozen batch statistics and a linear head."""

    def __init__(self, weight_norm, eta=ETA):
        super().__init__()
        self.conv1 = AdderConv2d(3, 8, 3, weight_norm=weight_norm, eta=eta)
        self.conv2 = AdderConv2d(8, 6, 3, weight_norm=weight_norm, eta=eta)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 1)
        # About the statistics of adders of this size.
        self.bn1.running_mean.fill_(-30.).add_(torch.randn(8))
        self.bn2.running_mean.fill_(-70.).add_(torch.randn(6))
        self.bn1.running_var.fill_(9.)
        self.bn2.running_var.fill_(25.)
        self.train()

    def train(self, mode=True):
        super().train(mode)
        self.bn1.eval(), self.bn2.eval()
        return self

    def forward(self, inputs, factor, mode='loss'):
        features = relu(self.bn1(self.conv1(inputs)))
        features = self.bn2(self.conv2(features)).mean((2, 3))
        return dict(loss=(factor * self.head(features)[:, 0]).mean())


def samples(count):
    """Return inputs with losses of other signs on odd ranks than on even."""
    generator = torch.Generator().manual_seed(0)
    return [dict(inputs=torch.randn(3, 8, 8, generator=generator),
                 factor=torch.tensor((-1)**i * 10.**(i % 3 - 1)))
            for i in range(count)]


def weights(net):
    return {name: parameter.detach()
            for name, parameter in net.named_parameters()}


def batch(data):
    return {key: torch.stack([sample[key] for sample in data])
            for key in ('inputs', 'factor')}


def my_part(data):
    """Return what DefaultSampler gives to this process, all without ranks."""
    return data[dist.get_rank()::2] if dist.is_initialized() else data


def build(weight_norm, average_gradients):
    """Return the network, with DistributedDataParallel if there are ranks."""
    torch.manual_seed(0)
    net = Net(weight_norm)
    if not dist.is_initialized():
        return net, net
    set_averaging_group(dist.new_group() if average_gradients else None)
    return net, nn.parallel.DistributedDataParallel(net)


def train(weight_norm, average_gradients=False, micro_batches=1,
          grad_scale=1., data=samples(8), steps=3):
    """Return the weights after three steps and the first step's gradients."""
    net, model = build(weight_norm, average_gradients)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=.9)
    scaler = torch.amp.GradScaler('cpu', init_scale=grad_scale)
    first = None
    for _ in range(steps):
        optimizer.zero_grad()
        for i in range(micro_batches):
            part = batch(my_part(data[i::micro_batches]))
            last = i == micro_batches - 1
            with contextlib.ExitStack() as stack:
                if not last and model is not net:
                    stack.enter_context(model.no_sync())
                set_loss_scale(scaler.get_scale() / micro_batches)
                loss = model(**part)['loss'] / micro_batches
                scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        first = first or {name: parameter.grad.clone()
                          for name, parameter in net.named_parameters()}
        scaler.step(optimizer)
        scaler.update()
    set_loss_scale(1)
    return dict(weights=weights(net), gradients=first,
                scale=scaler.get_scale())


def train_with_runner(folder, weight_norm, batch_size, shards=False, **hook):
    """Return the weights of three iterations of MMEngine's runner."""
    torch.manual_seed(0)
    net, ranks = Net(weight_norm), dist.is_initialized()
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False,
                   device_ids=None)
    sharding = dict(type='FSDPStrategy', model_wrapper=dict(
        type='MMFullyShardedDataParallel', device_id='cpu'))
    kind, options = ((FlexibleRunner, dict(strategy=sharding)) if shards else
                     (Runner, dict(cfg=dict(model_wrapper_cfg=wrapper))))
    runner = kind(
        model=net,
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{ranks}',
        train_dataloader=dict(
            dataset=samples(6), batch_size=batch_size, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=LR, momentum=.9)),
        param_scheduler=[],
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[dict(type='LossScaleHook', **hook)],
        randomness=dict(seed=0),
        launcher='pytorch' if ranks else 'none',
        **options)
    runner.train()
    if not shards:
        return weights(net)
    with FullyShardedDataParallel.summon_full_params(runner.model):
        return {name: value.clone() for name, value in weights(net).items()}
