"""A file in place of a model."""
import pytest
import torch

from mmadder.errors import InputError
from mmadder.export.file_predictor import FilePredictor
from mmadder.models import build_model


class Constant(FilePredictor):

    def predict(self, inputs, data_samples):
        return [inputs.shape, data_samples]


def test_it_predicts_and_nothing_else(crops, detector):
    model = build_model(crops[0])
    predictor = Constant(model, 'a.file', dict(classes=['a']))
    assert predictor.is_classifier and not list(predictor.parameters())
    assert not Constant(build_model(detector[1]), 'a', {}).is_classifier
    shape, samples = predictor.test_step(dict(
        inputs=[torch.zeros(3, 8, 8, dtype=torch.uint8)], data_samples=None))
    assert shape == (1, 3, 8, 8) and samples is None
    with pytest.raises(RuntimeError, match='can only predict, not loss'):
        predictor(torch.zeros(1, 3, 8, 8), mode='loss')
    with pytest.raises(TypeError, match='abstract'):
        FilePredictor(model, 'a', {})


def test_all_runs_on_the_cpu(crops):
    """Whatever device the model came from, and the inputs come from."""
    model, moved = build_model(crops[0]), []
    model.cpu = lambda: moved.append('model')
    predictor = Constant(model, 'a.file', {})
    assert moved == ['model']

    class Far(torch.Tensor):
        def cpu(self):
            moved.append('inputs')
            return torch.zeros(1, 3, 8, 8)

    predictor(Far(), [])
    assert moved == ['model', 'inputs']


def test_classes_are_compared(crops):
    class Data:
        metainfo = dict(classes=('a', 'b'))

    model = build_model(crops[0])
    Constant(model, 'a.file', dict(classes=['a', 'b'])).require_classes(
        Data())
    with pytest.raises(InputError, match=r'a.file is for other classes than '
                       'the dataset: .*in the file|a.file is for other'):
        Constant(model, 'a.file', dict(classes=['b', 'a'])).require_classes(
            Data())
