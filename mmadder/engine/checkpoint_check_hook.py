"""Checkpoints fit, or testing, resuming and fine-tuning do not start."""

import logging
import os.path as osp

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import find_latest_checkpoint

from mmadder.checkpoints.classes import differing_classes, trained_classes
from mmadder.checkpoints.state_dict import compare_state_dict, get_state_dict
from mmadder.checkpoints.variants import (
    differing_connections,
    recorded_variants,
    require_connections,
    require_variant,
)
from mmadder.errors import InputError
from mmadder.layers import warn_before_adders
from mmadder.models import DistilledClassifier, unwrap_model

ADVICE = ('use the config that it was trained with; if the names mean the '
          "same, custom_hooks=[dict(type='CheckpointCheckHook', "
          'compare_classes=False)]')


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Compare a checkpoint with the model before the runner loads it.

    Testing and resuming need a checkpoint in which every key and shape fits,
    trained for the dataset's classes in their order (but for
    ``compare_classes=False``). Fine-tuning (``load_from`` in training) may
    replace parts of the model, such as a head for other classes: there,
    something must fit, and MMEngine logs what does not. The teacher of a
    DistilledClassifier must be of the dataset's classes. In a config::

        custom_hooks = [dict(type='CheckpointCheckHook')]

    Args:
        compare_classes: False leaves the comparison of classes out;
            where fine-tuning has others, it is a warning.
    Raises:
        InputError: the file does not exist, has no state dict, was trained
            with other layers (adders with another weight norm, say, or a
            neck without shortcuts) or for other classes, or does not fit;
            the message lists the keys and says what to do.
    """

    priority = 'VERY_HIGH'  # EMAHook reads the checkpoint afterwards

    def __init__(self, compare_classes: bool = True):
        self.compare_classes = compare_classes
        self.trained = None  # name and classes of the checkpoint

    def before_run(self, runner):
        name = _checkpoint_name(runner)
        if name and '://' not in name and not osp.isfile(name):
            raise InputError(
                f'checkpoint {name} does not exist, expected the file to '
                'test, to resume or to start from (load_from)')

    def after_load_checkpoint(self, runner, checkpoint):
        name = _checkpoint_name(runner)
        model = unwrap_model(runner.model)
        state_dict = get_state_dict(checkpoint, name)
        # The runner knows no other key, and would load nothing.
        checkpoint.setdefault('state_dict', state_dict)
        self.trained = name, trained_classes(checkpoint)
        require_variant(model, state_dict, recorded_variants(checkpoint), name,
                        getattr(runner.cfg, 'filename', None))
        difference = compare_state_dict(model, state_dict)
        self._compare_connections(runner, checkpoint)
        if runner._resume:
            self._require_fit(model, difference, name, 'resume')
            self._require_training_state(checkpoint, name)
        elif isinstance(runner.optim_wrapper, OptimWrapper):
            self._require_overlap(model, state_dict, name)
        else:
            self._require_fit(model, difference, name, 'test')

    def before_train(self, runner):
        if runner._resume and runner.iter >= runner.max_iters:
            print_log(f'{_checkpoint_name(runner)} was trained for '
                      f'{runner.iter} of {runner.max_iters} iterations: '
                      'nothing is left to train', logger='current',
                      level=logging.WARNING)
        difference = self._differing_classes(runner.train_dataloader)
        if difference and runner._resume:
            raise InputError(f'{difference}; {ADVICE}')
        if difference:
            print_log(f'{difference}; layers for another number of classes '
                      'start anew', logger='current', level=logging.WARNING)
        self.trained = None  # what is tested afterwards is another model
        self._compare_teacher(runner)

    def before_test(self, runner):
        warn_before_adders(unwrap_model(runner.model))
        difference = self._differing_classes(runner.test_dataloader)
        if difference:
            raise InputError(f'{difference}; {ADVICE}')

    def _differing_classes(self, dataloader):
        if self.trained is None or not self.compare_classes:
            return ''
        name, classes = self.trained
        difference = differing_classes(classes, dataloader.dataset)
        return difference and (f'checkpoint {name} was trained for other '
                               f'classes: {difference}')

    def _compare_teacher(self, runner):
        model = unwrap_model(runner.model)
        if not isinstance(model, DistilledClassifier) or \
                not self.compare_classes:
            return
        difference = differing_classes(
            model.teacher_classes(), runner.train_dataloader.dataset)
        if difference:
            raise InputError(f'teacher_ckpt {model.teacher_ckpt} was trained '
                             f'for other classes: {difference}; {ADVICE}')

    def _compare_connections(self, runner, checkpoint):
        if runner._resume or not isinstance(runner.optim_wrapper,
                                            OptimWrapper):
            require_connections(checkpoint, runner.cfg)
            return
        difference = differing_connections(checkpoint, runner.cfg)
        if difference:
            print_log(difference, logger='current', level=logging.WARNING)

    def _require_fit(self, model, difference, name, verb):
        if difference:
            raise InputError(
                f'checkpoint {name} does not fit {type(model).__name__}:\n'
                f'  {difference}\n'
                f'To {verb}, use the config that it was trained with')

    def _require_training_state(self, checkpoint, name):
        missing = [key for key in ('meta', 'message_hub', 'optimizer')
                   if key not in checkpoint]
        if missing:
            raise InputError(
                f'checkpoint {name} cannot be resumed, it has no '
                f'{", ".join(missing)}; start from its weights with '
                'load_from instead')

    def _require_overlap(self, model, state_dict, name):
        own = model.state_dict()
        if not any(key in own and own[key].shape == value.shape
                   for key, value in state_dict.items()):
            raise InputError(
                f'nothing in checkpoint {name} fits {type(model).__name__}:\n'
                f'  {compare_state_dict(model, state_dict)}\n'
                'For a pretrained backbone set, instead of load_from, '
                "model.backbone.init_cfg=dict(type='Pretrained', "
                f"checkpoint={name!r}, prefix='backbone.')")


def _checkpoint_name(runner):
    """Return the file that the runner loads, None if there is none."""
    if runner._load_from is None and runner._resume:
        return find_latest_checkpoint(runner.work_dir)
    return runner._load_from
