"""Checkpoints that would run code are refused; MMEngine's own load."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader
from torch import nn

from mmadder.checkpoints import safe_loading
from mmadder.errors import InputError

CODE = "open('ran', 'w').close()"


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def direct():
    return Call(exec, CODE)


def through_getattr():
    """Reach ``eval`` with what MMEngine's list allows, getattr above all."""
    builtins = Call(getattr, getattr, '__self__')
    return Call(torch._tensor._rebuild_from_type_v2,
                Call(getattr, builtins, 'eval'), torch.Tensor, (CODE, ), None)


@pytest.fixture(params=[direct, through_getattr])
def evil(request, tmp_path, monkeypatch):
    """Path of a checkpoint that writes the file 'ran'."""
    monkeypatch.chdir(tmp_path)
    weights = nn.Linear(2, 2).state_dict()
    torch.save(dict(state_dict=weights, meta=request.param()), 'evil.pth')
    return 'evil.pth'


def load_by_pretrained_init(path):
    PretrainedInit(path)(nn.Linear(2, 2))


@pytest.mark.parametrize('load', [
    CheckpointLoader.load_checkpoint, load_by_pretrained_init,
    lambda path: torch.load(path),
    lambda path: torch.load(path, weights_only=False),
    lambda path: torch.load(open(path, 'rb'))])
def test_code_is_refused(evil, tmp_path, load):
    with safe_loading.data_only():
        with pytest.raises(InputError, match='evil.pth is more than data.*'
                           'call (exec|builtins.getattr),') as error:
            load(evil)
    assert '--trust-checkpoint' in str(error.value)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('evil', [direct], indirect=True)
def test_trust_lifts_it_until_the_end(evil, tmp_path):
    before = torch.load
    with safe_loading.data_only():
        safe_loading.trust()
        checkpoint = CheckpointLoader.load_checkpoint(evil)
        assert (tmp_path / 'ran').exists()
        assert 'weight' in checkpoint['state_dict']
    assert torch.load is before
    with safe_loading.data_only(), pytest.raises(InputError):
        torch.load(evil)


@pytest.mark.parametrize('evil', [through_getattr], indirect=True)
def test_the_getattr_of_other_lists_is_not_used(evil, tmp_path):
    """MMEngine puts getattr on the list before it loads."""
    listed = [getattr, torch.Size]
    with torch.serialization.safe_globals(listed):
        with safe_loading.data_only(), pytest.raises(InputError):
            torch.load(evil, weights_only=True)
        assert set(torch.serialization.get_safe_globals()) >= set(listed)
    assert not (tmp_path / 'ran').exists()


def test_what_mmengine_writes_is_read(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    buffer = HistoryBuffer([1., 2.], [1, 1])
    torch.save(dict(
        state_dict=nn.Linear(2, 2).state_dict(),
        message_hub=dict(log_scalars=dict(loss=buffer), runtime_info=dict(
            eta=np.float64(3), best=np.float32(.5), flag=np.bool_(True)))),
        path)
    with safe_loading.data_only():
        hub = torch.load(path)['message_hub']
    loaded = hub['log_scalars']['loss']
    assert type(loaded) is HistoryBuffer
    np.testing.assert_array_equal(loaded.data, buffer.data)
    assert loaded.statistics('mean') == 1.5
    assert hub['runtime_info'] == dict(eta=3., best=.5, flag=True)


def test_arrays_of_numpy_1_and_2(tmp_path):
    """Each calls its core by another name."""
    path = tmp_path / 'array.pth'
    torch.save(np.arange(3), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    names = b'numpy._core.multiarray', b'numpy.core.multiarray'
    for old in names:
        for new in names:
            path.write_bytes(content.replace(old, new))
            with safe_loading.data_only():
                np.testing.assert_array_equal(torch.load(path), [0, 1, 2])


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('content', [
    b'no checkpoint', pickle.dumps(dict(x=1), protocol=4)],
    ids=['text', 'pickle'])
def test_other_files(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with safe_loading.data_only():
        with pytest.raises(InputError, match='other.pth cannot be read as '
                           'data .*damaged.*--trust-checkpoint'):
            torch.load(path)


def test_pickled_tensors_are_read():
    """Predictions in a file or from other processes go through torch.load."""
    sent = dict(a=torch.rand(3), b=torch.zeros(2, 0, dtype=torch.half),
                c=nn.Parameter(torch.rand(2)), d=torch.tensor([True]))
    content = pickle.dumps(sent)
    with safe_loading.data_only():
        received = pickle.loads(content)
    for key, value in sent.items():
        torch.testing.assert_close(received[key], value, rtol=0, atol=0)


def test_no_program_is_left_for_resuming(tmp_path):
    """MMEngine's Runner.resume executes meta['config']."""
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta=dict(config=CODE, cfg='x = 1', epoch=1)), path)
    with safe_loading.data_only():
        assert torch.load(path)['meta'] == dict(cfg='x = 1', epoch=1)
        torch.save(dict(meta=dict(config='x = 2')), tmp_path / 'old.pth')
        assert torch.load(tmp_path / 'old.pth')['meta'] == dict(cfg='x = 2')
        safe_loading.trust()
        assert torch.load(path)['meta']['config'] == CODE
