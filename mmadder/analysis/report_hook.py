"""A page of figures about each detection run, beside its log."""
import os.path as osp
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner.loops import BaseLoop

from mmadder.errors import InputError
from mmadder.runs.scalars import read_scalars

from .detection_report import run_facts, write_report
from .detections import join_annotations

BOXES = ('bboxes', 'scores', 'labels')


@HOOKS.register_module()
class DetectionReportHook(Hook):
    """Write ``WORK_DIR/TIMESTAMP/report/`` when a detection run ends.

    The page ``index.html`` has average precision, precision-recall curve and
    counts per class, training curves, confusion matrix and sample
    predictions. It is written after the validation that ends a training, and
    after every test; earlier validations do not collect anything. Training
    without validation, or stopped early, gives no report. In a config::

        default_hooks = dict(report=dict(type='DetectionReportHook'))

    ``tools/train.py`` and ``tools/test.py`` add it to configs of MMDetection
    that do not name it; ``dict(report=None)`` leaves it out.

    A report that cannot be made, such as that of a dataset without boxes, of
    more than 100 classes or of pictures that are not files, is one warning:
    the run is worth more.

    Args:
        enable: False, no report.
    """

    priority = 'LOWEST'  # after the logger, whose curves it reads

    def __init__(self, enable: bool = True) -> None:
        self.enable = enable
        self.boxes = BoxCollector()

    def before_val_epoch(self, runner):
        if self.enable and _is_last(runner):
            runner.val_loop.evaluator.metrics.append(self.boxes)

    def after_val_epoch(self, runner, metrics=None):
        self._finish(runner, runner.val_loop, 'validation')

    def before_test_epoch(self, runner):
        if self.enable:
            runner.test_loop.evaluator.metrics.append(self.boxes)

    def after_test_epoch(self, runner, metrics=None):
        self._finish(runner, runner.test_loop, 'test')

    def _finish(self, runner, loop, split):
        if self.boxes not in loop.evaluator.metrics:
            return
        loop.evaluator.metrics.remove(self.boxes)
        samples, self.boxes.samples = self.boxes.samples, []
        if not is_main_process():
            return
        try:
            page = self._write(runner, loop.dataloader.dataset, samples, split)
        except (InputError, OSError) as error:
            runner.logger.warning(f'No detection report: {error}')
        else:
            runner.logger.info(f'Detection report: {page}')

    def _write(self, runner, dataset, samples, split):
        if not samples:
            raise InputError('the model predicts no boxes')
        runs, title = {}, Path(runner.cfg.filename or 'Detection run').stem
        if split == 'validation' and _trains(runner):
            runs = {title: read_scalars(runner.work_dir)}
        page, _ = write_report(
            osp.join(runner.log_dir, 'report'), title,
            join_annotations(dataset, samples, 'the evaluation'), runs,
            facts=run_facts(runner.cfg), split=split)
        return page


class BoxCollector(BaseMetric):
    """Not a metric: gathers the boxes of all processes in the first one.

    Attributes:
        samples (list of dict): of the last evaluation, ``img_id`` and the
            arrays of ``pred_instances``; empty in other processes.
    """

    default_prefix = 'report'

    def __init__(self):
        super().__init__()
        self.samples = []

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if set(BOXES) <= set(sample.get('pred_instances', {}).keys()):
                self.results.append(dict(
                    img_id=sample['img_id'], pred_instances={
                        key: sample['pred_instances'][key].cpu().numpy()
                        for key in BOXES}))

    def compute_metrics(self, results):
        self.samples = results
        return {}


def _trains(runner):
    return isinstance(runner._train_loop, BaseLoop)


def _is_last(runner):
    """Whether training is over when this validation is, or there is none."""
    return (not _trains(runner) or runner.epoch >= runner.max_epochs
            or runner.iter >= runner.max_iters)
