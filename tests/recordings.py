"""Work directories with what MMEngine's logger and StatisticsHook write."""
import json

import numpy as np

LAYERS = {'backbone.conv1': 'conv', 'backbone.layer1.0.conv1': 'adder',
          'backbone.layer1.0.conv2': 'adder', 'neck.fpn_convs.0.conv':
          'adder'}

VOC_LOG = '''2026/01/01 10:00:00 - mmengine - INFO - started
2026/01/01 10:20:00 - mmengine - INFO -
---------------iou_thr: 0.5---------------
{tables}
2026/01/01 10:30:00 - mmengine - INFO - done
'''
VOC_TABLE = '''+-------+-----+------+--------+-------+
| class | gts | dets | recall | ap    |
+-------+-----+------+--------+-------+
| a     | 968 | 3581 | 0.628  | {a} |
| b c   | 87  | 629  | 0.402  | {b} |
+-------+-----+------+--------+-------+
| mAP   |     |      |        | {mean} |
+-------+-----+------+--------+-------+
'''


def statistics(kind, epoch, growth):
    """One layer's entry: weight variance multiplies by ``growth``."""
    var = 2. * growth**epoch
    entry = dict(
        kind=kind, weight_mean=.1, weight_var=var, filter_mean=.1,
        filter_var=var, input_mean=.4, input_var=.3, feature_mean=-100. * var,
        feature_var=50. * var, feature_channel_var=16. * var,
        bn_mean=-100. * var + 4., bn_var=16. * var, normalized_mean=0.,
        normalized_var=1., grad_norm_weight=1.)
    if kind == 'adder':
        entry.update(nu_mean=1., nu_std=.1, upsilon_mean=.5, upsilon_std=.1,
                     grad_norm_raw=.01, grad_norm_scaled=40.)
    return entry


def write_records(folder, epochs, growth=1.1, layers=LAYERS, change=None):
    """Write statistics and histograms of some epochs, 10 iterations each."""
    data = folder / 'vis_data'
    (data / 'histograms').mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with open(data / 'statistics.jsonl', 'a') as file:
        for epoch in epochs:
            entries = {name: statistics(kind, epoch, growth)
                       for name, kind in layers.items()}
            if change:
                change(epoch, entries)
            file.write(json.dumps(dict(epoch=epoch, iter=10 * epoch,
                                       layers=entries)) + '\n')
            arrays = {}
            for name, entry in entries.items():
                for quantity in ('weight', 'filter', 'feature', 'normalized'):
                    mean, var = (entry.get(f'{quantity}_{what}')
                                 for what in ('mean', 'var'))
                    if mean is None or var is None:
                        continue
                    values = mean + var**.5 * rng.standard_normal(20000)
                    counts, edges = np.histogram(values, 100)
                    arrays[f'{name}/{quantity}'] = counts
                    arrays[f'{name}/{quantity}/range'] = edges[[0, -1]]
            np.savez(data / 'histograms' / f'epoch_{epoch}.npz', **arrays)


def write_scalars(folder, epochs, metric='accuracy/top1', values=None,
                  losses=None):
    """Write scalars.json: two training records and a validation an epoch."""
    data = folder / 'vis_data'
    data.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, epoch in enumerate(epochs):
        for half in (5, 10):
            step = 10 * (epoch - 1) + half
            lines.append(dict(loss=3. / step, epoch=epoch, iter=step,
                              step=step))
        validation = {metric: values[i] if values else 50. + epoch}
        if losses:
            validation['test/cross_entropy'] = losses[i]
        lines.append(dict(validation, data_time=.1, time=.1, step=epoch))
    (data / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))


def write_run(path, epochs=8, growth=1.1, **scalars):
    """Write a whole run; returns its work directory."""
    folder = path / '20260101_000000'
    write_records(folder, range(1, epochs + 1), growth)
    write_scalars(folder, range(1, epochs + 1), **scalars)
    return path


def write_logged_run(path, values, metric='pascal_voc/mAP',
                     classes=('a', 'b c'), log='', stamp='20260101_000000',
                     losses=None, begin=0):
    """Write curves, config and log of two-iteration epochs; returns path.

    ``begin`` epochs were trained before, in a folder of an earlier stamp.
    """
    folder = path / stamp
    (folder / 'vis_data').mkdir(parents=True)
    losses = losses or [2 - i / 9 for i in range(2 * len(values))]
    records = []
    for i, value in enumerate(values):
        epoch = begin + i + 1
        records += [dict(loss=losses[2 * i + half], epoch=epoch,
                         step=2 * epoch - 1 + half) for half in (0, 1)]
        records.append({metric: value, 'time': .1, 'step': epoch})
    (folder / 'vis_data' / 'scalars.json').write_text(
        '\n'.join(map(json.dumps, records)))
    metainfo = f'metainfo=dict(classes={classes!r})' if classes else ''
    (folder / 'vis_data' / 'config.py').write_text(
        f'val_dataloader = dict(dataset=dict({metainfo}))')
    if log:
        (folder / f'{stamp}.log').write_text(log)
    return path
