from mmengine.config import Config

from mmadder.config_nodes import nodes, type_name


def test_type_is_a_name_or_a_class():
    assert type_name(dict(type='FPN')) == 'FPN'
    assert type_name(dict(type='mmdet.FPN')) == 'FPN'
    assert type_name(dict(type=Config)) == 'Config'
    assert type_name(dict()) == type_name(None) == ''


def test_all_dicts_with_their_paths():
    cfg = Config(dict(a=dict(b=[dict(c=1), 2, (dict(d=dict()), )]), e='f'))
    assert [path for path, _ in nodes(cfg._cfg_dict)] == [
        '', 'a', 'a.b.0', 'a.b.2.0', 'a.b.2.0.d']
    assert dict(nodes(cfg.a, 'a'))['a.b.0'] == dict(c=1)
    assert list(nodes(None)) == []
