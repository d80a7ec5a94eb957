"""What a training left in its work directory."""
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mmengine.config import Config

from mmadder.errors import InputError

from .scalars import Records, last_training, read_scalars, step_name

STAMP = re.compile(r'^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d', re.MULTILINE)
STAMP_FORMAT = '%Y/%m/%d %H:%M:%S'
# Of VOCMetric: | class | gts | dets | recall | ap |
VOC_ROW = re.compile(
    r'^\| (\S.*?) +\| \d+ +\| \d+ +\| [\d.]+ +\| ([\d.]+) +\|$', re.MULTILINE)
VOC_MEAN = re.compile(r'^\| mAP +\|[| ]+\| ([\d.]+) +\|$', re.MULTILINE)
COCO_CLASS = re.compile(r'^coco/(.+)_precision$')


@dataclass
class Run:
    """One training, resumed or not.

    Attributes:
        folder: its work directory.
        train, val: records of :func:`read_scalars`.
        classes: of the validation set, if the config names them.
        log: all its log files.
        seconds: wall time of all attempts, validation included; those
            before it was begun anew are of another training.
    """
    folder: str
    train: Records
    val: Records
    classes: tuple[str, ...] | None = None
    log: str = ''
    seconds: float = 0.

    @property
    def step_name(self) -> str:
        """What the steps of ``val`` count."""
        return step_name(self.train, self.val)

    def class_ap(self, metric: str) -> dict[str, float]:
        """Return average precision by class after the last evaluation.

        VOCMetric only prints it: then the table whose mean is the last
        value of the metric is taken. CocoMetric logs it if it is told
        ``classwise=True``. Empty if there is none.
        """
        last = {match[1]: value for key, value in self.val[-1].items()
                if (match := COCO_CLASS.match(key))}
        if last and metric.startswith('coco/'):
            return last
        tables = self.log.split('iou_thr: ')[:0:-1]
        for table in tables:
            mean = VOC_MEAN.search(table)
            if mean and abs(float(mean[1]) - self.val[-1][metric]) < 6e-4:
                return {name: float(ap)
                        for name, ap in VOC_ROW.findall(table)}
        return {}


def read_run(folder: str | Path) -> Run:
    """Read a training of MMDetection or MMPretrain.

    Args:
        folder: work directory, or one time-stamped folder.
    Raises:
        InputError: no run is there, or one without training.
    """
    if not Path(folder).is_dir():
        raise InputError(f'{folder} is not a directory, expected the work '
                         'directory of a run')
    train, val = read_scalars(folder)
    if not train:
        raise InputError(f'{folder} has no training losses yet')
    folders = last_training(folder)
    logs = [path.read_text(errors='replace') for stamped in folders
            for path in sorted(stamped.glob('*.log'))]
    return Run(str(folder), train, val, _classes(folders[-1]),
               '\n'.join(logs), sum(map(_seconds, logs)))


def _seconds(log):
    stamps = STAMP.findall(log)
    if not stamps:
        return 0.
    first, last = (datetime.strptime(stamp, STAMP_FORMAT)
                   for stamp in (stamps[0], stamps[-1]))
    return (last - first).total_seconds()


def _classes(folder):
    path = folder / 'vis_data' / 'config.py'
    if not path.is_file():
        return None
    config = Config.fromfile(path, import_custom_modules=False)
    dataset = (config.get('val_dataloader') or {}).get('dataset') or {}
    while 'metainfo' not in dataset:
        inner = dataset.get('dataset') or dataset.get('datasets')
        if not inner:
            return None
        dataset = inner[0] if isinstance(inner, list) else inner
    classes = (dataset['metainfo'] or {}).get('classes')
    return tuple(classes) if classes else None
