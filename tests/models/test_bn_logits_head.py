import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch.nn import functional

from mmadder.models import BNLogitsHead


@pytest.mark.parametrize('bias', [False, True])
def test_is_a_1x1_convolution_and_a_batch_norm(bias):
    """As AdderNet's code writes it."""
    torch.manual_seed(0)
    head = BNLogitsHead(5, 7, bias=bias)
    assert (head.fc.bias is not None) == bias
    for value in (*head.parameters(), head.bn.running_mean):
        torch.nn.init.normal_(value.data)
    features = torch.randn(6, 7)
    logits = functional.conv2d(
        features[:, :, None, None], head.fc.weight[:, :, None, None],
        head.fc.bias)
    expected = functional.batch_norm(
        logits, head.bn.running_mean, head.bn.running_var, head.bn.weight,
        head.bn.bias)[:, :, 0, 0]
    torch.testing.assert_close(head.eval()((features, )), expected)


def test_initialization_is_pytorchs():
    """A small fc behind a norm would take far larger steps."""
    head = BNLogitsHead(10, 64)
    before = head.fc.weight.clone()
    head.init_weights()
    assert torch.equal(head.fc.weight, before)
    assert head.fc.weight.abs().max() < 64 ** -0.5


def test_loss_and_prediction_through_the_registry():
    head = MMPRETRAIN_MODELS.build(dict(
        type='BNLogitsHead', num_classes=3, in_channels=4))
    assert type(head) is BNLogitsHead
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    loss = head.loss((torch.randn(3, 4), ), samples)['loss']
    loss.backward()
    assert head.bn.weight.grad is not None
    predictions = head.eval().predict((torch.randn(3, 4), ), samples)
    assert predictions[0].pred_score.shape == (3, )
