# Batch norms of the backbone keep the statistics of the pretraining. Those of
# the neck start untrained: there is nothing to keep.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-12e_bccd.py'
model = dict(backbone=dict(norm_eval=True))
