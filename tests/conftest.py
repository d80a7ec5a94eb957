"""Tiny data for tests of datasets and tools."""

import copy
import gc
import itertools
import logging
import os
import random
import runpy
import signal
import sys
from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
import torch
from exported import boxes_file, crops, scene  # noqa: F401, fixtures
from hypothesis import settings
from mmdet.datasets import VOCDataset
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR10
from tiny_detector import make_detector
from toy_classifier import toy, write_small

from mmadder.robustness import Pictures

# The same examples in every run, however slow the machine. A sanitized build
# takes --hypothesis-profile=few.
PROFILE = dict(derandomize=True, database=None, deadline=None)
settings.register_profile('many', max_examples=400, **PROFILE)
settings.register_profile('few', max_examples=100, **PROFILE)
settings.load_profile('many')

TOOLS = Path(__file__).parents[1] / 'tools'
SPLITS = dict(train=6, val=3, test=3)
DEVKIT = dict(VOC2007=dict(trainval=2, test=3), VOC2012=dict(trainval=4))
DIFFICULT_BOX = (42, 44, 60, 62)
CLASSES = tuple('0123456789')
SIZE = 64
OBJECT = '''  <object>
    <name>{name}</name>
    <difficult>{difficult}</difficult>
    <bndbox>
      <xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>
    </bndbox>
  </object>
'''
ANNOTATION = '''<annotation>
  <size><width>{size}</width><height>{size}</height><depth>3</depth></size>
{objects}</annotation>
'''


def pytest_configure():
    # Tests press Ctrl-C, which a job in the background would ignore.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Workers of pytest-xdist, and their tools, share the cores.
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    if workers > 1:
        threads = max(1, os.cpu_count() // workers)
        os.environ['OMP_NUM_THREADS'] = str(threads)
        torch.set_num_threads(threads)
    # Autograd counts the devices at its first backward, and where a test has
    # brought up another one by then, its processes cannot be forked any more.
    torch.ones(1, requires_grad=True).backward()


def pytest_collection_finish():
    # MMEngine collects garbage for each data set: half a second, over all
    # that was imported by now, if that is not left out.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup():
    """The same numbers for a test whatever ran before it, and where."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def default_scope():
    """Runners set a scope and leave it: no test is to depend on that."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(autouse=True, scope='session')
def distinct_runs():
    """Number the runs: MMEngine knows them by config and second only.

    The second of two in one second would go on with the first one's logger
    and visualizer, and write below a work dir that may be gone.
    """
    numbers, set_up = itertools.count(), Runner.setup_env

    def setup_env(self, env_cfg):
        set_up(self, env_cfg)
        self._timestamp += f'_{next(numbers):05}'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, 'setup_env', setup_env)
        yield


def draw(rng, box, label):
    """Return a noisy picture with one bright rectangle."""
    picture = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    picture[y1 - 1:y2, x1 - 1:x2] = 120 + 10 * label
    return picture


def annotate_object(name, box, difficult=0):
    x1, y1, x2, y2 = box
    return OBJECT.format(
        name=name, difficult=difficult, x1=x1, y1=y1, x2=x2, y2=y2)


def annotate(name, box, size=SIZE):
    return ANNOTATION.format(size=size, objects=annotate_object(name, box))


def make_voc(root, splits=SPLITS):
    """Write VOC2007-style folders: one rectangle in each 64x64 picture.

    Names are <split>_<i>, classes '0', '1', '2', ..., corners 1-based.
    """
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        names = [f'{split}_{i}' for i in range(count)]
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(
            '\n'.join(names) + '\n')
        for label, name in enumerate(names):
            x1, y1, width, height = rng.integers(10, 30, 4).tolist()
            box = (x1, y1, x1 + width, y1 + height)
            cv2.imwrite(str(root / 'JPEGImages' / f'{name}.jpg'),
                        draw(rng, box, label))
            (root / 'Annotations' / f'{name}.xml').write_text(
                annotate(CLASSES[label], box))
    return root


def make_devkit(root):
    """Write a VOCdevkit: VOC2007 and VOC2012, all classes in each split.

    Classes are spread over the pictures of a split. The last object of each
    picture is difficult, in its lower right corner, and of the first class.
    """
    classes = VOCDataset.METAINFO['classes']
    for year, splits in DEVKIT.items():
        folder = make_voc(root / year, splits) / 'Annotations'
        for split, count in splits.items():
            for i in range(count):
                objects = [annotate_object(name, (4 + j, 6, 34 + j, 40 - j))
                           for j, name in enumerate(classes[i::count])]
                objects.append(annotate_object(classes[0], DIFFICULT_BOX, 1))
                (folder / f'{split}_{i}.xml').write_text(ANNOTATION.format(
                    size=SIZE, objects=''.join(objects)))
    return root


def make_crops(root):
    """Write <split>/<class>/<i>.png, 48x48, for ten classes."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                picture = draw(rng, (8, 8, 40, 40), label)[:48, :48]
                cv2.imwrite(str(folder / f'{i}.png'), picture)
    return root


@pytest.fixture
def voc(tmp_path):
    """Return a fresh VOC2007 folder that a test may damage."""
    return make_voc(tmp_path / 'VOC2007')


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Return a data root in the layout of the digit configs; read-only."""
    root = tmp_path_factory.mktemp('digits')
    make_voc(root / 'VOC2007')
    make_crops(root / 'crops')
    return root


@pytest.fixture
def devkit(tmp_path):
    """Return a fresh VOCdevkit that a test may damage."""
    return make_devkit(tmp_path / 'VOCdevkit')


@pytest.fixture
def cifar(tmp_path):
    """Return a data root with two pictures per class of CIFAR-10 a split."""
    rng = np.random.default_rng(0)
    for split, name in itertools.product(
            ('train', 'test'), CIFAR10.METAINFO['classes']):
        folder = tmp_path / 'cifar' / split / name
        folder.mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(folder / f'{i}.png'), rng.integers(
                0, 256, (32, 32, 3), dtype=np.uint8))
    return tmp_path / 'cifar'


@pytest.fixture
def image_folder(tmp_path):
    """Return a data root in ImageNet's layout: 4 classes, 3 pictures each.

    48x40 pixels (width x height), all of one brightness within a class.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / 'image_folder'
    for split, (label, name) in itertools.product(
            ('train', 'val'), enumerate(('ant', 'bee', 'cat', 'dog'))):
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / f'{i}.jpg'), rng.integers(
                60 * label, 60 * label + 30, (40, 48, 3), dtype=np.uint8))
    return root


@pytest.fixture
def annotation():
    """Return a function (name, box, size=64) -> text of a VOC annotation."""
    return annotate


@pytest.fixture(scope='session')
def site_packages():
    """Return the folder in which MMDetection and MMPretrain lie."""
    return Path(mmengine.__file__).parents[1]


@pytest.fixture(scope='session')
def toy_set():
    """Return a toy classifier, its images and their labels."""
    return toy()


@pytest.fixture
def small(cifar, tmp_path):
    """Return a folder with a small config and its checkpoint, beside data."""
    return write_small(tmp_path)


@pytest.fixture(scope='session')
def made_detector(digits, tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp('detector'), digits)


@pytest.fixture
def detector(made_detector):
    """Return the folder of a tiny detector, its config and its network.

    The config is the test's own: Config.copy would share its dicts.
    """
    folder, cfg, network = made_detector
    return folder, copy.deepcopy(cfg), network


@pytest.fixture
def annotated(detector):
    """Return two pictures and their annotations."""
    return Pictures(detector[1]).load(0)


@pytest.fixture
def call_tool(monkeypatch):
    """Return a function that runs a file of tools/ in this process."""

    def call(name, *args, code=None):
        path = str(TOOLS / name)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        if code is None:
            runpy.run_path(path, run_name='__main__')
            return
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(path, run_name='__main__')
        assert stopped.value.code == code

    return call


@pytest.fixture
def warnings():
    """Collect what the current logger is told."""
    texts = []

    class Collector(logging.Handler):

        def emit(self, record):
            texts.append(record.getMessage())

    collector, logger = Collector(), MMLogger.get_current_instance()
    logger.addHandler(collector)
    yield texts
    logger.removeHandler(collector)
