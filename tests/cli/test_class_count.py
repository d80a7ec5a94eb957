import pytest
from mmengine.config import Config

from mmadder.cli.class_count import fit_classes
from mmadder.errors import InputError


def add_class(folder):
    """Make a folder with a picture; only its name is looked at."""
    folder.mkdir(parents=True)
    (folder / 'a.jpg').touch()


@pytest.fixture
def root(tmp_path):
    """Data root with three classes in train and val."""
    for split in ('train', 'val'):
        for name in ('cat', 'dog', 'emu'):
            add_class(tmp_path / split / name)
    return tmp_path


def make_config(root, num_classes=1000, **kwargs):
    def loader(split):
        return dict(dataset=dict(
            type='ImageNet', data_root=f'{root}/', split=split, **kwargs))

    return Config(dict(
        num_classes=num_classes,
        data_preprocessor=dict(num_classes=num_classes),
        model=dict(head=dict(num_classes=num_classes, topk=(1, 5))),
        train_dataloader=dict(dataset=dict(
            type='RepeatDataset', times=2, **loader('train'))),
        val_dataloader=loader('val'), test_dataloader=loader('val'),
        val_evaluator=dict(type='Accuracy', topk=(1, 5)),
        test_evaluator=[dict(type='Accuracy', topk=(1, 5))]))


def test_folders_say_the_classes(root):
    cfg = make_config(root)
    sentence = fit_classes(cfg)
    assert sentence == (
        f'{root}/: 3 classes, so model.head.num_classes=3 (was 1000), '
        'accuracy of top (1,) (was (1, 5))')
    assert cfg.model.head == dict(num_classes=3, topk=(1, ))
    assert cfg.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator[0].topk == (1, )
    for dataset in (cfg.train_dataloader.dataset.dataset,
                    cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        assert dataset.metainfo.classes == ('cat', 'dog', 'emu')
    assert fit_classes(cfg) is None
    assert fit_classes(cfg, given=3) is None


def test_a_given_number_must_be_that_of_the_folders(root):
    with pytest.raises(InputError, match='num_classes=7 is given, but .* has '
                       '3 classes: cat, dog, emu'):
        fit_classes(make_config(root, 7), given=7)


@pytest.mark.parametrize('dataloaders', [
    ('train_dataloader', 'val_dataloader'), ('test_dataloader', )])
def test_splits_must_have_equal_classes(root, dataloaders):
    (root / 'val' / 'emu').rename(root / 'val' / 'yak')
    with pytest.raises(InputError, match='val must have the classes of .*'
                       'train.*missing: emu; unknown: yak'):
        fit_classes(make_config(root), dataloaders)


def test_testing_needs_no_training_folder(root):
    (root / 'train').rename(root / 'elsewhere')
    assert ': 3 classes' in fit_classes(make_config(root),
                                        ('test_dataloader', ))
    with pytest.raises(InputError, match='train does not exist; expected one '
                       'folder of pictures per class'):
        fit_classes(make_config(root), ('train_dataloader', ))


def test_no_class(tmp_path):
    (tmp_path / 'val').mkdir()
    with pytest.raises(InputError, match='val has no folders'):
        fit_classes(make_config(tmp_path), ('test_dataloader', ))


def test_real_imagenet_keeps_its_names(tmp_path):
    for i in range(1000):
        add_class(tmp_path / 'val' / f'n{i:08}')
    cfg = make_config(tmp_path)
    before = cfg.to_dict()
    assert fit_classes(cfg, ('test_dataloader', )) is None
    assert cfg.to_dict() == before


def test_names_in_the_config_stay(root):
    cfg = make_config(root, metainfo=dict(classes=('c', 'd', 'e')))
    fit_classes(cfg)
    assert cfg.val_dataloader.dataset.metainfo.classes == ('c', 'd', 'e')


@pytest.fixture
def listed(tmp_path):
    """Data root in the layout with lists of pictures and labels."""
    (tmp_path / 'meta').mkdir()
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        (tmp_path / 'meta' / f'{split}.txt').write_text(
            'a b.jpg 0\nc.jpg 6\n')
    return tmp_path


def test_lists_take_the_number_of_the_config(listed):
    cfg = make_config(listed)
    before = cfg.to_dict()
    assert fit_classes(cfg) is None
    assert cfg.to_dict() == before
    cfg.model.head.num_classes = 7  # as --cfg-options does
    assert fit_classes(cfg, given=7) is None
    assert cfg.data_preprocessor.num_classes == 7
    assert cfg.val_dataloader.dataset.metainfo.classes == tuple('0123456')


def test_wrong_lists(listed):
    with pytest.raises(InputError, match='train.txt, line 2: label 6 needs '
                       'more than the 5 classes .*model.head.num_classes=N'):
        fit_classes(make_config(listed, 5))
    (listed / 'meta' / 'val.txt').write_text('a.jpg\n')
    with pytest.raises(InputError, match='val.txt, line 1: expected a picture '
                       'and a label'):
        fit_classes(make_config(listed))


def test_training_list_and_validation_folders(listed):
    """The folders say the number, and the labels must fit it."""
    (listed / 'meta' / 'val.txt').unlink()
    for name in 'abc':
        add_class(listed / 'val' / name)
    with pytest.raises(InputError, match='label 6 needs .* the 3 classes'):
        fit_classes(make_config(listed))


@pytest.mark.parametrize('cfg', [
    dict(model=dict(type='FasterRCNN'), train_dataloader=dict(
        dataset=dict(type='CocoDataset', data_root='none'))),
    dict(model=dict(head=dict(num_classes=3)), test_dataloader=dict(
        dataset=dict(type='ImageNet', data_root='none', split='test')))])
def test_other_data_changes_nothing(cfg):
    cfg = Config(cfg)
    before = cfg.to_dict()
    assert fit_classes(cfg) is None
    assert cfg.to_dict() == before


def test_other_folders_are_no_classes(root):
    for name in ('.ipynb_checkpoints', '__MACOSX', 'empty'):
        (root / 'train' / name).mkdir()
    (root / 'train' / '__MACOSX' / 'a.jpg').touch()
    cfg = make_config(root)
    with pytest.raises(InputError, match=r'no classes: \.ipynb_checkpoints, '
                       "__MACOSX, empty.*type='CheckedImageNet'"):
        fit_classes(cfg)
    for loader in (cfg.train_dataloader.dataset, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.dataset.type = 'CheckedImageNet'
    assert '3 classes' in fit_classes(cfg)


def test_class_without_pictures_in_one_split_stays_a_class(root):
    (root / 'val' / 'cat' / 'a.jpg').unlink()
    assert '3 classes' in fit_classes(make_config(root))
    (root / 'val' / 'cat').rmdir()
    with pytest.raises(InputError, match='missing: cat'):
        fit_classes(make_config(root))
