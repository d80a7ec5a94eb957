import pytest
from mmdet.datasets import VOCDataset
from mmengine.config import Config

from mmadder.config_nodes import library, nodes, own_metainfo, type_name
from mmadder.datasets import CheckedXMLDataset, CIFAR10Images


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
