import pytest
from mmdet.datasets import VOCDataset
from mmengine.config import Config

from mmadder.config_nodes import (
    library,
    literals,
    nodes,
    own_metainfo,
    read_config,
    type_name,
)
from mmadder.datasets import CheckedXMLDataset, CIFAR10Images
from mmadder.errors import InputError


def test_type_is_a_name_or_a_class():
    assert type_name(dict(type='FPN')) == 'FPN'
    assert type_name(dict(type='mmdet.FPN')) == 'FPN'
    assert type_name(dict(type=Config)) == 'Config'
    assert type_name('mmdet.FPN') == type_name('FPN') == 'FPN'
    assert type_name(Config) == 'Config'
    assert type_name(dict()) == type_name(None) == ''
    assert type_name(dict(type=None)) == ''


def test_all_dicts_with_their_paths():
    cfg = Config(dict(a=dict(b=[dict(c=1), 2, (dict(d=dict()), )]), e='f'))
    assert [path for path, _ in nodes(cfg._cfg_dict)] == [
        '', 'a', 'a.b.0', 'a.b.2.0', 'a.b.2.0.d']
    assert dict(nodes(cfg.a, 'a'))['a.b.0'] == dict(c=1)
    assert list(nodes(None)) == []


@pytest.mark.parametrize('kind, expected', [
    (VOCDataset, 'mmdet'), ('mmdet.datasets.VOCDataset', 'mmdet'),
    ('mmdet.VOCDataset', 'mmdet'), (CheckedXMLDataset, 'mmdet'),
    (CIFAR10Images, 'mmpretrain'), ('VOCDataset', None), (Config, None),
    (None, None)])
def test_library(kind, expected):
    assert library(dict(type=kind)) == expected


@pytest.mark.parametrize('kind', [
    VOCDataset, 'VOCDataset', 'mmdet.VOCDataset', 'mmdet.datasets.VOCDataset'])
def test_own_metainfo(kind):
    """Whatever the scope is outside."""
    assert own_metainfo(dict(type=kind), 'mmdet') == VOCDataset.METAINFO


def test_own_metainfo_of_none():
    assert own_metainfo(dict(type=Config), 'mmdet') == {}
    assert own_metainfo(dict(type='Unknown'), 'mmdet') == {}


def test_a_config_that_a_file_brings_along():
    cfg = Config(dict(
        a=dict(b=[1, -2.5, None], size=(3, 4), type='mmdet.FPN'),
        c=[dict(type='mmdet.datasets.VOCDataset', d={'x.y': True})]))
    found = read_config(cfg.pretty_text, 'a.npz')
    assert found.to_dict() == cfg.to_dict()
    assert isinstance(found.a.size, tuple)


@pytest.mark.parametrize('text', [
    'import os', 'open("ran", "w")', 'a = open("ran", "w")', 'a = b',
    'a = [*b]', 'a = dict(**b)', 'a = {**b}', 'a.b = 1', 'for', 'a = f"{b}"',
    'if 1:\n  a = 1', "a = dict(type='os.system', command='true')",
    "a = [dict(b=dict(type='mmengine.utils.package_utils.call_command'))]"])
def test_a_config_that_is_more_than_data(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='the config in a.npz'):
        read_config(text, 'a.npz')
    assert not list(tmp_path.iterdir())


def test_what_is_no_value_is_passed_over():
    assert literals('a = dict(b=c, d=1)\nimport e\nf = g()') == dict(
        a=dict(b=None, d=1), f=None)
