"""A chain of adders with something in the middle."""
from mmcv.cnn import ConvModule
from torch import nn

AWN = dict(type='AdderConv2d', weight_norm='AWN')
RELU = dict(type='ReLU')


def adder(inputs=16, outputs=16, **kwargs):
    return ConvModule(inputs, outputs, 3, padding=1, conv_cfg=AWN,
                      norm_cfg=dict(type='BN'), act_cfg=RELU, **kwargs)


class FourAdders(nn.Module):
    """Four adders, and between them what a test wants to see."""

    def __init__(self, between, stem=None):
        super().__init__()
        self.stem = stem or nn.Identity()
        self.one, self.two = adder(), adder()
        self.three, self.four = adder(), adder()
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.between = between

    def forward(self, x):
        x = self.two(self.one(self.stem(x)))
        return self.four(self.three(self.between(self, x)))
