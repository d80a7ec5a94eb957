import pytest
from mmengine.config import Config

from mmadder.cli.data_root import replace_data_root, require_data_roots
from mmadder.errors import InputError


def dataset(root, **kwargs):
    return dict(type='XMLDataset', data_root=root, ann_file='train.txt',
                **kwargs)


@pytest.fixture
def cfg():
    """Build a config with every nesting that OpenMMLab's configs use."""
    return Config(dict(
        data_root='data/voc/',
        train_dataloader=dict(dataset=dict(
            type='MultiImageMixDataset', dataset=dict(
                type='ClassBalancedDataset', dataset=dict(
                    type='RepeatDataset', dataset=dict(
                        type='ConcatDataset', datasets=[
                            dataset('data/voc/'),
                            dataset('data/voc/VOC2012')]))))),
        val_dataloader=dict(dataset=dict(
            type='CocoDataset', data_root='data/voc',
            ann_file='data/voc/val.json',
            data_prefix=dict(img='data/voc_other/'))),
        test_dataloader=[dict(dataset=dataset('data/voc'))],
        val_evaluator=dict(type='CocoMetric', ann_file='data/voc/val.json'),
        test_evaluator=[dict(type='VOCMetric'),
                        dict(type='CocoMetric',
                             ann_file='data/voc/test.json')]))


def test_every_dataset_and_evaluator_moves(cfg, tmp_path):
    new = str(tmp_path)
    replace_data_root(cfg, new)
    concat = cfg.train_dataloader.dataset.dataset.dataset.dataset
    assert [d.data_root for d in concat.datasets] == [
        f'{new}/', f'{new}/VOC2012']
    assert concat.datasets[0].ann_file == 'train.txt'
    val = cfg.val_dataloader.dataset
    assert (val.data_root, val.ann_file) == (new, f'{new}/val.json')
    assert val.data_prefix.img == 'data/voc_other/'
    assert cfg.test_dataloader[0].dataset.data_root == new
    assert cfg.val_evaluator.ann_file == f'{new}/val.json'
    assert cfg.test_evaluator[1].ann_file == f'{new}/test.json'
    assert cfg.data_root == f'{new}/'
    require_data_roots(cfg, ['val_dataloader', 'test_dataloader'])


def test_shared_dataset_moves_once(tmp_path, monkeypatch):
    """`test_dataloader = val_dataloader` must not apply the move twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data' / 'new').mkdir(parents=True)
    loader = dict(dataset=dataset('data'))
    cfg = Config(dict(val_dataloader=loader, test_dataloader=loader))
    replace_data_root(cfg, 'data/new')
    assert cfg.val_dataloader.dataset.data_root == 'data/new'
    assert cfg.test_dataloader.dataset.data_root == 'data/new'


def test_cfg_option_data_root_takes_no_effect(cfg, tmp_path):
    """Why --data-root exists."""
    cfg.merge_from_dict(dict(data_root=str(tmp_path)))
    assert cfg.val_dataloader.dataset.data_root == 'data/voc'
    replace_data_root(cfg, str(tmp_path))
    assert cfg.val_dataloader.dataset.data_root == str(tmp_path)


def test_paths_without_dataset_root_follow_the_variable(tmp_path):
    cfg = Config(dict(data_root='data/voc/', train_dataloader=dict(
        dataset=dict(type='VOC', ann_file='data/voc/train.txt'))))
    replace_data_root(cfg, str(tmp_path))
    assert cfg.train_dataloader.dataset.ann_file == f'{tmp_path}/train.txt'


@pytest.mark.parametrize('name', [
    'mmdet/.mim/configs/_base_/datasets/voc0712.py',
    'mmdet/.mim/configs/_base_/datasets/coco_detection.py',
    'mmpretrain/.mim/configs/_base_/datasets/imagenet_bs32.py',
    'mmpretrain/.mim/configs/_base_/datasets/cifar10_bs16.py'])
def test_upstream_configs_keep_no_old_root(name, tmp_path, site_packages):
    cfg = Config.fromfile(site_packages / name)
    replace_data_root(cfg, str(tmp_path))
    require_data_roots(cfg)
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        assert "'data/" not in str(cfg[key])
        assert 'loader' not in key or str(tmp_path) in str(cfg[key])


def test_errors(cfg, tmp_path):
    with pytest.raises(InputError, match="'nowhere' of --data-root is not"):
        replace_data_root(cfg, 'nowhere')
    with pytest.raises(InputError, match="data/voc/.*train_dataloader of the "
                       'config.*--data-root DIR'):
        require_data_roots(cfg)
    cfg.train_dataloader.dataset.dataset.dataset = dataset('other/place')
    with pytest.raises(InputError, match='different places.*other/place'):
        replace_data_root(cfg, str(tmp_path))
    with pytest.raises(InputError, match='no data_root'):
        replace_data_root(Config(dict(model=dict())), str(tmp_path))
