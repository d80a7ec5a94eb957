import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmadder.checkpoints.state_dict import (
    compare_state_dict,
    get_state_dict,
    load_pretrained,
    read_checkpoint,
    split_pretrained,
)
from mmadder.errors import InputError
from mmadder.models import AdderResNet


class Toy(BaseModel):
    """A backbone with batch norm and a head."""

    def __init__(self, width=3, classes=2, layers=1):
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Linear(width, width) for _ in range(layers)),
            nn.BatchNorm1d(width))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs, mode='tensor'):
        output = self.head(self.backbone(inputs))
        return dict(loss=output.mean()) if mode == 'loss' else [output]


def make_runner(tmp_path, model=None, resume=False, **kwargs):
    width = 3 if model is None else model.backbone[0].in_features
    samples = [dict(inputs=torch.rand(width)) for _ in range(4)]
    loader = DataLoader(samples, batch_size=2)
    return Runner(
        model or Toy(), work_dir=str(tmp_path / 'work'), resume=resume,
        train_dataloader=loader, test_dataloader=loader,
        test_evaluator=[], test_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='CheckpointCheckHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        experiment_name=f'{tmp_path.name}_{id(kwargs)}', **kwargs)


def save(tmp_path, model, **kwargs):
    path = tmp_path / 'saved.pth'
    torch.save(dict(state_dict=model.state_dict(), **kwargs), path)
    return str(path)


def test_compare_state_dict():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state_dict = {'0.weight': torch.ones(4, 2), '0.bias': torch.ones(3),
                  '1.weight': torch.ones(3), '1.bias': torch.ones(3),
                  '1.running_mean': torch.ones(3), '2.weight': torch.ones(1),
                  'data_preprocessor.mean': torch.ones(3),
                  'ema_0_weight': torch.ones(3, 2), 'fc.bias': torch.ones(1)}
    difference = compare_state_dict(model, state_dict, ignore=('fc.', ))
    assert difference
    assert difference.missing == ['1.running_var']
    assert difference.unexpected == ['2.weight']
    assert difference.misshapen == [
        '0.weight ((4, 2) in the file, (3, 2) in the model)']
    assert not compare_state_dict(model, model.state_dict())


def test_long_lists_are_cut():
    difference = compare_state_dict(
        nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(25))), {})
    assert str(difference) == (
        '25 keys missing from the file: ' +
        ', '.join(f'{i}.weight' for i in range(20)) + ' and 5 more')


@pytest.mark.parametrize('checkpoint, message', [
    (dict(epoch=3, net=dict(x=torch.ones(1))), 'a dict with epoch, net'),
    (dict(state_dict={}), 'a dict with state_dict'),
    ([torch.ones(1)], 'it is a list')])
def test_no_state_dict(checkpoint, message):
    with pytest.raises(InputError, match=f'FILE holds no .*{message}'):
        get_state_dict(checkpoint, 'FILE')


def test_failed_load_changes_nothing(tmp_path):
    path = save(tmp_path, Toy(layers=2))
    model = Toy()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(InputError, match='does not fit Toy'):
        load_pretrained(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_unreadable_checkpoint(tmp_path):
    path = tmp_path / 'half.pth'
    torch.save(dict(state_dict=Toy().state_dict()), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match='half.pth cannot be read'):
        load_pretrained(Toy(), str(path))


def test_split_pretrained():
    kaiming = dict(type='Kaiming', layer='Conv2d')
    cfg = dict(type='Pretrained', checkpoint='F', prefix='P')
    assert split_pretrained(None) == ([], None)
    assert split_pretrained(kaiming) == ([kaiming], None)
    assert split_pretrained([cfg, kaiming]) == (
        [kaiming], dict(checkpoint='F', prefix='P'))


def test_test_needs_every_key(tmp_path):
    path = save(tmp_path, Toy(width=4, layers=2))
    with pytest.raises(InputError) as error:
        make_runner(tmp_path, load_from=path).test()
    message = str(error.value)
    assert message.startswith(f'checkpoint {path} does not fit Toy:')
    assert '3 keys missing' not in message
    assert '5 keys not in the model: backbone.2.weight' in message
    assert ('head.weight ((2, 4) in the file, (2, 3) in the model)'
            in message)
    assert 'To test, use the config that it was trained with' in message


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', None])
@pytest.mark.parametrize('parallel', ['', 'module.'])
def test_test_loads_wrapped_checkpoints(tmp_path, wrapper, parallel):
    """What passes the check is also what the runner then loads."""
    trained = Toy()
    state_dict = {parallel + key: value
                  for key, value in trained.state_dict().items()}
    path = str(tmp_path / 'wrapped.pth')
    torch.save({wrapper: state_dict} if wrapper else state_dict, path)
    runner = make_runner(tmp_path, load_from=path)
    runner.test()
    assert torch.equal(runner.model.head.weight, trained.head.weight)


def test_fine_tuning_may_replace_the_head(tmp_path):
    pretrained = Toy(classes=7)
    runner = make_runner(tmp_path, load_from=save(tmp_path, pretrained))
    runner.register_hook(KeepFirst())
    runner.train()
    assert torch.equal(runner.first, pretrained.backbone[0].weight)


class KeepFirst(Hook):
    """Keep the weights that training starts with."""

    def before_train(self, runner):
        runner.first = runner.model.backbone[0].weight.detach().clone()


def test_fine_tuning_needs_something_that_fits(tmp_path):
    path = str(tmp_path / 'backbone.pth')
    torch.save(Toy().backbone.state_dict(), path)
    with pytest.raises(InputError, match='nothing in checkpoint .* fits'):
        make_runner(tmp_path, load_from=path).train()


def test_resume_needs_every_key(tmp_path):
    make_runner(tmp_path, Toy(classes=7)).train()
    with pytest.raises(InputError, match='epoch_2.pth does not fit(.|\n)*'
                       'head.weight(.|\n)*To resume'):
        make_runner(tmp_path, resume=True).train()


def test_resume_goes_on(tmp_path):
    make_runner(tmp_path).train()
    runner = make_runner(tmp_path, resume=True)
    runner.train()
    assert runner.epoch == 2
    assert runner.iter == 4


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = save(tmp_path, Toy())
    with pytest.raises(InputError, match='has no meta, message_hub, '
                       'optimizer; start from its weights with load_from'):
        make_runner(tmp_path, load_from=path, resume=True).train()


def test_missing_file(tmp_path):
    runner = make_runner(tmp_path, load_from='no/such/epoch_1.pth')
    with pytest.raises(InputError, match='no/such/epoch_1.pth does not exis'):
        runner.test()


def test_advice_of_a_missing_file_is_for_whoever_reads_it(tmp_path):
    """A backbone may start from random weights; a conversion may not."""
    path = str(tmp_path / 'none.pth')
    with pytest.raises(InputError, match='none.pth does not exist$'):
        read_checkpoint(path)
    with pytest.raises(InputError, match=r"pretrained checkpoint '\S+none.pth'"
                       ' does not exist, .*; train it first, or set init_cfg'):
        AdderResNet(18, init_cfg=dict(
            type='Pretrained', checkpoint=path)).init_weights()
