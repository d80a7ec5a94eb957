"""When setup.py leaves the CUDA operators out, and what it says then."""
import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def setup_py():
    spec = importlib.util.spec_from_file_location('setup_py',
                                                  ROOT / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A folder with the headers that are looked for, torch for CUDA 13."""
    (tmp_path / 'include').mkdir()
    (tmp_path / 'include' / 'cuda_runtime_api.h').touch()
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.delenv('MMADDER_CUDA', raising=False)
    return tmp_path


def test_a_fitting_toolkit_is_used(setup_py, toolkit):
    assert setup_py.why_no_cuda(toolkit, '13') is None


@pytest.mark.parametrize('major, reason', [
    ('12', 'nvcc 12 does not fit torch for 13.0'),
    (None, 'nvcc None does not fit'),
])
def test_another_version_is_not(setup_py, toolkit, major, reason):
    assert reason in setup_py.why_no_cuda(toolkit, major)


def test_reasons_are_said(setup_py, toolkit, monkeypatch):
    assert 'nvcc was not found' in setup_py.why_no_cuda(None, None)
    (toolkit / 'include' / 'cuda_runtime_api.h').unlink()
    assert 'no CUDA headers' in setup_py.why_no_cuda(toolkit, '13')
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert setup_py.why_no_cuda(toolkit, '13') == 'torch is a CPU build'
    monkeypatch.setenv('MMADDER_CUDA', '0')
    assert setup_py.why_no_cuda(toolkit, '13') == 'MMADDER_CUDA=0'


def test_demanded_but_impossible_is_an_error(setup_py, monkeypatch):
    monkeypatch.setenv('MMADDER_CUDA', '1')
    monkeypatch.setattr(setup_py, 'find_cuda', lambda: (None, None))
    with pytest.raises(SystemExit, match='MMADDER_CUDA=1, but nvcc was not'):
        setup_py.make_extension()


def test_unknown_choice_is_an_error(setup_py, monkeypatch):
    monkeypatch.setenv('MMADDER_CUDA', 'yes')
    with pytest.raises(SystemExit, match="auto, 0 or 1, got 'yes'"):
        setup_py.make_extension()


def test_nvcc_is_asked_for_its_folder(setup_py, tmp_path, monkeypatch):
    """The nvcc in PATH may be a script that starts another."""
    nvcc = tmp_path / 'nvcc'
    nvcc.write_text('#!/bin/sh\ncase "$1" in --version) '
                    'echo "Cuda compilation tools, release 13.1, V13.1.1";; '
                    f'*) echo "#\\$ TOP={tmp_path}/real/bin/.." >&2;; esac\n')
    nvcc.chmod(0o755)
    (tmp_path / 'real' / 'bin').mkdir(parents=True)
    for name in ('CUDA_HOME', 'CUDA_PATH'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    assert setup_py.find_cuda() == (str(tmp_path / 'real'), '13')
