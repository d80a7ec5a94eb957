"""Set-up: a sentence for each thing that is missing, wheels by torch."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load_script():
    spec = importlib.util.spec_from_file_location(
        'setup_env', ROOT / 'tools' / 'setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_env = load_script()
VENV = Path('/nowhere/at/all/.venv')


@pytest.mark.parametrize('arguments, message', [
    (dict(version=(3, 12)), 'Python 3.12 was used.*PYTHON=/path'),
    (dict(include='/nowhere'), 'apt-get install python3.11-dev'),
    (dict(disk_gb=1e9), 'GB free at /.*VENV=/other/disk'),
])
def test_what_is_missing_is_said(arguments, message):
    with pytest.raises(setup_env.SetupError, match=message):
        setup_env.check_machine(VENV, **dict(
            dict(version=(3, 11), disk_gb=0), **arguments))


def test_missing_compiler_is_said(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(setup_env.SetupError,
                       match='no-such-compiler was not found; apt-get inst'):
        setup_env.check_machine(VENV, disk_gb=0, version=(3, 11))


def test_error_is_one_sentence_on_the_command_line(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'setup_env.py', '--venv',
         tmp_path / 'venv', '--disk-gb', '1e9'],
        capture_output=True, text=True)
    assert result.returncode == 1
    assert 'GB free' in result.stderr
    assert result.stderr.count('\n') == 1
    assert not (tmp_path / 'venv').exists()


@pytest.mark.parametrize('output, advice', [
    ('OSError: [Errno 28] No space left on device', 'disk is full'),
    ('NewConnectionError: Temporary failure in name resolution',
     'package index cannot be reached'),
    ('fatal error: Python.h: No such file', 'python3.11-dev'),
    ('something new', 'whole output is in'),
])
def test_failed_step_ends_with_advice(tmp_path, output, advice):
    setup = setup_env.Setup(tmp_path / 'venv')
    with pytest.raises(setup_env.SetupError, match=advice):
        setup.run('step', [sys.executable, '-c',
                           f'print({output!r}); raise SystemExit(1)'])


def test_wheels_are_kept_apart_by_torch(tmp_path):
    a = setup_env.wheel_folder('2.11.0+cu130', False, tmp_path)
    b = setup_env.wheel_folder('2.10.0+cu130', False, tmp_path)
    gpu = setup_env.wheel_folder('2.11.0+cu130', True, tmp_path)
    assert len({a, b, gpu}) == 3
    a.mkdir(parents=True)
    wheel = a / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    wheel.touch()
    assert setup_env.find_wheel(a, '2.3.6') == wheel
    assert setup_env.find_wheel(a, '2.3.7') is None
    assert setup_env.find_wheel(b, '2.3.6') is None


def test_steps_run_once_and_again_when_an_input_changes(tmp_path):
    runs = []

    def steps(first, second):
        setup = setup_env.Setup(tmp_path)
        setup.step('one', 0, [first], lambda: runs.append('one'))
        setup.step('two', 0, [second], lambda: runs.append('two'))

    steps('a', 'b')
    steps('a', 'b')
    assert runs == ['one', 'two']
    steps('a', 'c')
    assert runs == ['one', 'two', 'two']
    steps('d', 'c')  # what builds on a changed step is done again
    assert runs == ['one', 'two', 'two', 'one', 'two']


def test_interrupted_step_leaves_no_stamp(tmp_path):
    def fail():
        raise KeyboardInterrupt

    setup = setup_env.Setup(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        setup.step('one', 0, [], fail)
    assert not (tmp_path / '.mmadder' / 'one').exists()


@pytest.fixture
def pip_calls(tmp_path, monkeypatch):
    """[(step, whether with --no-deps)] of a set-up without its downloads."""
    calls = []
    monkeypatch.setattr(setup_env.Setup, 'make_environment', lambda _: None)
    monkeypatch.setattr(setup_env.Setup, 'pip', lambda _, step, *arguments:
                        calls.append((step, '--no-deps' in arguments)))
    monkeypatch.setattr(setup_env, 'install_mmcv', lambda *_: None)
    monkeypatch.setattr(setup_env, 'check_imports', lambda _: None)
    setup_env.run_all(tmp_path)
    return calls


def test_torchattacks_comes_without_its_old_requests(pip_calls):
    """After what it imports, and before our extension."""
    names = [name for name, _ in pip_calls]
    start = names.index('robustness')
    assert pip_calls[start:start + 3] == [
        ('robustness', False), ('torchattacks', True), ('extension', True)]
    text = (ROOT / 'requirements' / 'torchattacks.txt').read_text()
    assert 'torchattacks==' in text


def test_what_make_lint_runs_is_pinned(pip_calls):
    """Last, so that a new ruff does not compile the extension anew."""
    assert pip_calls[-1] == ('lint', False)
    pins = (ROOT / 'requirements' / 'lint.txt').read_text().split()
    assert {pin.partition('==')[0] for pin in pins} == {
        'ruff', 'clang-format'}
    assert all('==' in pin for pin in pins)
