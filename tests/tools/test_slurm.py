"""What the Slurm scripts hand to srun, with a stand-in that prints it."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def submit(tmp_path):
    """Return a function that runs a script and gives srun's arguments."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)

    def run(script, *arguments, **variables):
        environment = dict(
            os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}',
            PYTHON=sys.executable, **variables)
        return subprocess.run([TOOLS / script, *arguments], text=True,
                              env=environment, capture_output=True)

    return run


@pytest.mark.parametrize('script, call', [
    ('slurm_train.sh', ['train.py', 'a b.py', '--work-dir', 'x']),
    ('slurm_test.sh', ['test.py', 'a b.py', 'x'])])
def test_arguments_in_openmmlabs_order(submit, script, call):
    result = submit(script, 'gpus', 'job', 'a b.py', 'x', '--data-root', 'c d',
                    GPUS='16', SRUN_ARGS='--time=8:00:00  --qos=long')
    words = result.stdout.splitlines()
    start = words.index(sys.executable)
    assert words[start + 1:] == [
        '-u', f'{TOOLS}/{call[0]}', *call[1:], '--launcher', 'slurm',
        '--data-root', 'c d']
    options = words[:start]
    assert options[-2:] == ['--time=8:00:00', '--qos=long']
    assert dict(zip(options[:-2:2], options[1:-2:2])) == {
        '--partition': 'gpus', '--job-name': 'job', '--gres': 'gpu:8',
        '--ntasks': '16', '--ntasks-per-node': '8', '--cpus-per-task': '5',
        '--kill-on-bad-exit': '1'}


def test_fewer_gpus_than_a_full_node(submit):
    words = submit('slurm_train.sh', 'gpus', 'job', 'a.py', 'x',
                   GPUS='2').stdout.splitlines()
    assert words[words.index('--ntasks-per-node') + 1] == '2'
    assert words[words.index('--gres') + 1] == 'gpu:2'


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_usage(submit, script):
    result = submit(script, 'gpus', 'job', 'a.py')
    assert result.returncode == 2
    assert 'PARTITION JOB_NAME CONFIG' in result.stderr
