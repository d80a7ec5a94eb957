"""Every documented command is understood, and run or listed with a reason."""
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from documented_commands import ROOT, read_commands
from mmengine.config import Config
from official_adder_net import make_adder_net
from settling import settle

from mmadder.models import build_model

COMMANDS = read_commands()
SCRIPTS = {'dist_train.sh': 'train.py', 'dist_test.sh': 'test.py',
           'slurm_train.sh': 'train.py', 'slurm_test.sh': 'test.py'}
LETTER = '(?<![A-Za-z]){}(?![A-Za-z])'  # that stands alone
# Run below, with a small network and small data in place of the words.
RUN = ('docs/training.md', 'docs/inference.md', 'docs/conversion.md',
       'docs/robustness.md')
# Not run here: (page, beginning of the command, reason).
LISTED = [
    (r'README|CONTRIBUTING', 'make ', 'CI runs make setup, lint, test, '
     'test-slow, test-sanitized; tests/tools/test_quickstart.py the rest'),
    (r'.*', r'(MMADDER_CUDA=1 )?pip install -e', 'set-up, in CI'),
    (r'.*', 'pip install', 'another package'),
    (r'.*', 'mim train', 'needs MIM'),
    (r'README', r'python tools/(convert_checkpoint|train).py', 'the lines of '
     'docs/from_cnn.md'),
    (r'docs/from_cnn.md', '', 'needs weights to download; '
     'tests/tools/test_(convert_checkpoint|train_from_cnn).py run it small'),
    (r'docs/own_data.md', '', 'tests/tools/test_check_dataset.py and '
     'tests/cli/test_detector_classes.py run it in parts'),
    (r'docs/results/|configs/(bccd|cifar10|coco|imagenet|own_data|voc)/',
     '', 'needs data sets that are not shipped, hours, or several GPUs'),
    (r'configs/digits/README.md', '', 'trains for minutes; what the '
     'quickstart runs'),
    (r'docs/export.md', 'python tools/', 'tests/export runs it small, and '
     'needs optional packages'),
    (r'docs/integer.md', 'python ', 'tests/export, tests/test_apis.py and '
     'tests/tools/test_convert_integer.py run it small'),
    (r'weights/README.md', 'python -m mmadder', 'tests/test_apis.py'),
    (r'docs/scaling.md|docs/training.md', 'bash tools/dist|NNODES=|GPUS=',
     'several machines or GPUs; tests/tools/test_dist_train.py and '
     'test_slurm.py run the scripts'),
    (r'docs/speed.md|CONTRIBUTING', 'python tools/benchmark.py',
     'minutes on a quiet machine; tests/benchmark runs it on less'),
    (r'docs/cuda.md', 'python tools/benchmark.py --device cuda|make test-gpu|'
     'python tools/test_gpu.py', 'needs a GPU; tests/tools/test_test_gpu.py '
     'rehearses it'),
    (r'docs/cuda.md', 'python -m pytest', 'these tests themselves'),
    (r'docs/(cuda|scaling).md', 'python tools/analysis/report_sass.py',
     'needs a build with CUDA; tests/cuda reads the same figures'),
    (r'docs/cuda.md', 'python tools/analysis/count_launches.py',
     'tests/tools/test_count_launches.py runs it'),
    (r'docs/cuda.md', 'python tools/analysis/half_precision.py',
     'needs CIFAR-10; tests/analysis/test_half_precision.py runs it small'),
    (r'docs/scaling.md', 'python tools/analysis/fill_scaling.py',
     'writes that page; tests/tools/test_fill_scaling.py runs it on a copy'),
]


def reason_not_to_run(command):
    return next((reason for page, start, reason in LISTED
                 if re.match(page, command.page)
                 and re.match(start, command.text)), None)


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_command_is_run_or_listed(command):
    assert command.page in RUN or reason_not_to_run(command), (
        'neither in RUN nor in LISTED')


def variants(words):
    """The words with V, S and A replaced by what the pages say of them."""
    words = [re.sub(LETTER.format('S'), '0', word) for word in words]
    if any(word.endswith('ablations/A.py') for word in words):
        return [[word.replace('/A.py', f'/{path.name}') for word in words]
                for path in sorted(ROOT.glob('configs/bccd/ablations/*.py'))]
    return [[re.sub(LETTER.format('V'), variant, word) for word in words]
            for variant in ('cnn', 'ann-awn')]


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_command_is_understood(command, monkeypatch, capsys):
    """By the tool's own parser; configs, scripts and targets exist."""
    program, *rest = command.words
    if program == 'make':
        for target in rest:
            if re.fullmatch(r'[A-Z_]+=\S+', target):
                name, _ = target.split('=')
                assert f'$({name})' in (ROOT / 'Makefile').read_text()
                continue
            assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(),
                             re.M)
        return
    if program in ('pip', 'mim'):
        return
    if program in ('python', 'bash'):
        program, *rest = rest
    if program == '-m':
        assert rest[0] in ('pytest', 'mmadder')
        return
    for arguments in variants(rest):
        understand(ROOT / program, arguments, monkeypatch)


def understand(script, arguments, monkeypatch):
    assert script.is_file()
    for word in arguments:
        if re.match(r'configs/.*\.py$', word):
            assert (ROOT / word).is_file(), word
    if script.suffix == '.sh':
        if script.name.startswith('slurm'):
            _, _, *arguments = arguments
        elif script.name == 'dist_test.sh':
            arguments = arguments[:2] + arguments[3:]
        else:
            arguments = arguments[:1] + arguments[2:]
        if script.name == 'slurm_train.sh':  # CONFIG WORK_DIR
            arguments = arguments[:1] + arguments[2:]
        script = script.with_name(SCRIPTS[script.name])
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    if script.name == 'benchmark.py':
        from mmadder.benchmark import cuda, networks, operators, throughput
        from mmadder.benchmark.shapes import SHAPE_SETS
        namespace = runpy.run_path(str(script), dict(
            cuda=cuda, networks=networks, operators=operators,
            throughput=throughput, SHAPE_SETS=SHAPE_SETS))
    else:
        namespace = runpy.run_path(str(script))
    namespace['parse_args']()


# ------------------------------------------------------------- run for real --


CLASSIFIER = ROOT / 'configs/digits/ann-awn-resnet18_1xb32-5e_digits.py'
TWIN = ROOT / 'configs/digits/cnn-resnet18_1xb32-5e_digits.py'
TINY = '''
_base_ = {base!r}
train_cfg = dict(max_epochs=2, val_interval=1)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
'''


@pytest.fixture(scope='module')
def place(tmp_path_factory, digits):
    """A folder in which the documented words are real files."""
    place = tmp_path_factory.mktemp('commands')
    for name, base in (('CONFIG', CLASSIFIER), ('CNN_CONFIG', TWIN)):
        (place / f'{name}.py').write_text(TINY.format(base=str(base)))
    torch.manual_seed(0)
    for name, base in (('CHECKPOINT', CLASSIFIER), ('CNN', TWIN)):
        config = Config.fromfile(base)
        # A network that has seen nothing proves no conversion.
        model = settle(build_model(config), torch.randn(8, 3, 48, 48))
        torch.save(dict(state_dict=model.state_dict(), meta=dict(
            cfg=config.pretty_text,
            dataset_meta=dict(classes=tuple('0123456789')))),
            place / f'{name}.pth')
    plain = settle(build_model(Config.fromfile(
        CLASSIFIER.with_name('ann-resnet18_1xb32-5e_digits.py'))),
        torch.randn(8, 3, 48, 48)).state_dict()
    torch.save(plain, place / 'PLAIN.pth')
    for depth, classes in ((20, 10), (50, 1000)):
        torch.save(make_adder_net(depth, classes).state_dict(),
                   place / f'ResNet{depth}-AdderNet.pth')
    shutil.copy(
        next((digits / 'crops/test/0').iterdir()), place / 'IMAGE.png')
    (place / 'configs').symlink_to(ROOT / 'configs')
    (place / 'tools').symlink_to(ROOT / 'tools')
    return place


def real(words, digits):
    """Words of a page as files of the folder; runs need their own folder."""
    files = dict(
        CONFIG='CONFIG.py', CNN_CONFIG='CNN_CONFIG.py',
        CHECKPOINT='CHECKPOINT.pth', DIR=str(digits), DATA=str(digits),
        IMAGE='IMAGE.png', WORK_DIRS='work_dirs')
    words = [re.sub(r'[^=]+$', lambda file: files.get(file[0], file[0]), word)
             for word in words]  # name=FILE too
    words = [re.sub(r'\bWORK_DIR\b', 'work_dirs/CONFIG', word)
             for word in words]
    out = words.index('--out') + 1 if '--out' in words else None
    if out and words[out] == str(digits):
        words[out] = 'out'
    return words


@pytest.mark.slow
@pytest.mark.parametrize('page', RUN)
def test_page(page, place, digits):
    """One command after the other, as somebody who reads the page."""
    if page == 'docs/training.md':
        more = {'tools/train.py': ['--seed', '0']}
    else:
        more = {'tools/robustness.py': ['--images', '4', '--batch-size', '2'],
                'tools/quantize.py': ['--data-root', str(digits)],
                'tools/test.py': ['--data-root', str(digits)]}
    for command in COMMANDS:
        if command.page != page or reason_not_to_run(command):
            continue
        words = real(command.words, digits)
        if '--merge' in words:
            for name in ('cnn', 'ann', 'ann-ws'):  # measured before
                text = (place / 'ann-awn.json').read_text()
                (place / f'{name}.json').write_text(
                    text.replace('"ANN-AWN"', f'"{name}"'))
        else:
            words += [word for word in more.get(words[1], ())
                      if word not in words or not word.startswith('--')]
        result = subprocess.run(
            [sys.executable, *words[1:]], cwd=place, capture_output=True,
            text=True)
        assert result.returncode == 0, f'{command}\n{result.stderr[-3000:]}'
