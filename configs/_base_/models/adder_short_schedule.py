# Two departures from the paper that pay in runs of a few hundred iterations:
# weights start around 0.5 (paper: 0), and the local gradient scaling takes
# larger steps (AdderNet: eta=0.2). Backbones hand their weights from
# pretraining to detection, so both stages take this one.
adder_cfg = dict(
    type='AdderConv2d', weight_norm=dict(type='AWN', upsilon=0.5), eta=5.)
