# The four convolutions of the box head become adders.
_base_ = ('./faster-rcnn_ann-awn-r18_ann-awn-fpn_'
          'cnn-4conv1fc_4xb4-12e_voc0712.py')
model = dict(
    roi_head=dict(
        bbox_head=dict(
            conv_cfg=dict(type='AdderConv2d', weight_norm='AWN'))))
