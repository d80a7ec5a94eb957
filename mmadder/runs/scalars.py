"""What MMEngine's logger wrote of a training: ``vis_data/scalars.json``."""
import json
from pathlib import Path

from mmadder.errors import InputError

Records = list[dict[str, float]]


def run_folders(path: str | Path) -> list[Path]:
    """Return the time-stamped folders of a training, oldest first.

    Args:
        path: a work directory, or one such folder.
    """
    path = Path(path)
    folders = [path, *sorted(path.glob('*'))]
    return [folder for folder in folders
            if (folder / 'vis_data' / 'scalars.json').is_file()]


def read_scalars(path: str | Path) -> tuple[Records, Records]:
    """Read MMEngine's ``vis_data/scalars.json``, or several of a resumed run.

    Args:
        path: the file, or a work directory that holds such files in its
            time-stamped folders, or one of these folders.
    Returns:
        training and validation records, in order of their ``step``; of steps
        that were run twice the later.
    Raises:
        InputError: there is none.
    """
    path = Path(path)
    files = [path] if path.is_file() else [
        folder / 'vis_data' / 'scalars.json' for folder in run_folders(path)]
    if not files:
        raise InputError(f'no vis_data/scalars.json in {path}')
    train, val = {}, {}
    for file in files:
        for line in file.read_text().splitlines():
            if not line.endswith('}'):
                continue  # being written, or cut off with its run
            record = json.loads(line)
            (train if 'loss' in record else val)[record['step']] = record
    return ([train[step] for step in sorted(train)],
            [val[step] for step in sorted(val)])
