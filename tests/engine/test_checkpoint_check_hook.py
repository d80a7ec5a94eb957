"""A runner loads a checkpoint that fits, or does not start."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmadder.errors import InputError
from mmadder.models import DistilledClassifier


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


def test_a_training_that_has_ended(tmp_path, caplog):
    """It ended at once, and said nothing."""
    make_runner(tmp_path).train()
    last = str(tmp_path / 'work' / 'epoch_2.pth')
    runner = make_runner(tmp_path, load_from=last, resume=True)
    with caplog.at_level('WARNING', runner.logger.name):
        runner.logger.addHandler(caplog.handler)
        runner.train()
    assert 'epoch_2.pth was trained for 4 of 4 iterations: nothing' in (
        caplog.text)


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = save(tmp_path, Toy())
    with pytest.raises(InputError, match='has no meta, message_hub, '
                       'optimizer; start from its weights with load_from'):
        make_runner(tmp_path, load_from=path, resume=True).train()


def test_missing_file(tmp_path):
    runner = make_runner(tmp_path, load_from='no/such/epoch_1.pth')
    with pytest.raises(InputError, match='no/such/epoch_1.pth does not exis'):
        runner.test()


def neck_config(**neck):
    """Of a model whose neck no key describes."""
    return dict(model=dict(neck=dict(type='AdderFPN', **neck)))


def test_shortcuts_that_no_key_shows(tmp_path):
    trained = Config(neck_config(shortcut=False)).pretty_text
    path = save(tmp_path, Toy(), meta=dict(cfg=trained))
    make_runner(tmp_path, load_from=path,
                cfg=neck_config(shortcut=False)).test()
    runner = make_runner(tmp_path, load_from=path, cfg=neck_config())
    with pytest.raises(InputError, match='model.neck.shortcut=False, the '
                       'config has True'):
        runner.test()


def test_fine_tuning_with_other_shortcuts_is_a_warning(tmp_path):
    trained = Config(neck_config(shortcut=False)).pretty_text
    path = save(tmp_path, Toy(), meta=dict(cfg=trained))
    make_runner(tmp_path, load_from=path, cfg=neck_config()).train()
    log, = tmp_path.glob('work/*/*.log')
    assert 'WARNING - the config in the checkpoint has model.neck.' \
        'shortcut=False, the config has True' in log.read_text()


class Named(list):
    """Samples of some classes."""

    def __init__(self, samples, classes):
        super().__init__(samples)
        self.metainfo = dict(classes=classes)


class Distilled(DistilledClassifier):
    """A toy with the file of a teacher."""

    def __init__(self, path):
        BaseModel.__init__(self)
        toy = Toy()
        self.backbone, self.head = toy.backbone, toy.head
        self.teacher_ckpt = path

    forward = Toy.forward


def test_a_teacher_of_other_classes(tmp_path):
    """Its answers would be of other things."""
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    path = save(tmp_path, Toy(), meta=meta)
    runner = make_runner(tmp_path, Distilled(path))
    runner._train_dataloader = DataLoader(Named(
        runner._train_dataloader.dataset, ('dog', 'cat')), batch_size=2)
    with pytest.raises(InputError, match='teacher_ckpt .*saved.pth was train'
                       "ed for other classes: 'cat' in the checkpoint is"):
        runner.train()
