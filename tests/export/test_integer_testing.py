"""Integer networks behind MMDetection's and MMPretrain's evaluators."""
import numpy as np
import pytest
import torch

from mmadder.cli import load_config
from mmadder.errors import InputError
from mmadder.export import IntegerPredictor, export_integer
from mmadder.files import shipped
from mmadder.models import build_model


@pytest.fixture(scope='module')
def file(crops, digits, tmp_path_factory):
    cfg = load_config(str(crops[1]), ('val_dataloader', 'test_dataloader'),
                      data_root=str(digits))
    out = tmp_path_factory.mktemp('integer') / 'small.npz'
    export_integer(cfg, crops[2], out, batches=1, progress=False)
    return out, cfg


def test_predictions_are_those_of_the_network(file):
    out, cfg = file
    predictor = IntegerPredictor(build_model(cfg), out)
    picture = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    sample, = predictor.test_step(dict(inputs=[picture], data_samples=None))
    # The preprocessor swaps channels and normalizes.
    found = predictor.run(picture.flip(0)[None])['logits']
    logits = torch.from_numpy(predictor.network.values(
        'logits', found.numpy())).flatten()
    torch.testing.assert_close(sample.pred_score, logits.softmax(0))
    with pytest.raises(RuntimeError, match='can only predict, not tensor'):
        predictor(picture[None], mode='tensor')


def test_another_model_or_other_classes(file, detector):
    out, cfg = file
    with pytest.raises(InputError, match='small.npz is a classifier, the con'):
        IntegerPredictor(build_model(detector[1]), out)
    predictor = IntegerPredictor(build_model(cfg), out)

    class Data:
        metainfo = dict(classes=('a', 'b'))

    with pytest.raises(InputError, match='is for other classes than'):
        predictor.require_classes(Data())


def test_another_run(file):
    out, cfg = file
    seen = []

    def run(codes):
        seen.append(codes)
        return dict(logits=torch.from_numpy(np.arange(10).reshape(
            1, 10, 1, 1).astype(np.int32)))

    predictor = IntegerPredictor(build_model(cfg), out, run)
    sample, = predictor.test_step(dict(
        inputs=[torch.zeros(3, 48, 48)], data_samples=None))
    assert seen[0].dtype == torch.uint8 and len(sample.pred_score) == 10


@pytest.mark.parametrize('config, message', [
    ('digits/retinanet_ann-awn-centered-r18_ann-awn-centered-fpn_1xb8-8e_'
     'digits.py', 'is a detector of 2 stages, the config has a RetinaNet'),
    ('bccd/faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_1xb4-24e_'
     'bccd.py', r'does not fit the RoI head of the config:\n.*for 10 and 3 '),
])
def test_another_detector(config, message):
    cfg = load_config(str(shipped('configs') / config))
    with pytest.raises(InputError, match=message):
        IntegerPredictor(build_model(cfg), shipped('weights') / 'digits.npz')
