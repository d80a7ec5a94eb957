# Batch norms of the backbone keep the statistics of the pretraining, as in
# MMDetection's own detectors: what AdderDet (arXiv:2112.13608) advises
# against, since adder features have a large variance. Those of the neck were
# not pretrained: they have nothing to keep.
_base_ = '../faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
model = dict(backbone=dict(norm_eval=True))
