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
    return [folder for folder in folders if _file_in(folder).is_file()]


def last_training(path: str | Path) -> list[Path]:
    """Return the folders of :func:`run_folders` that make up one training.

    A training that was begun anew in its work directory, not resumed, leaves
    the folders before it out.
    """
    folders = run_folders(path)
    *_, first = _join(map(_file_in, folders))
    return folders[first:]


def read_scalars(path: str | Path) -> tuple[Records, Records]:
    """Read MMEngine's ``vis_data/scalars.json``, or several of a resumed run.

    Args:
        path: the file, or a work directory that holds such files in its
            time-stamped folders, or one of these folders.
    Returns:
        training and validation records, in order of their ``step``. What
        a later folder trains again, from a checkpoint or from the beginning,
        and all that came behind it, is left out of the earlier ones. A
        validation of a training that has no epochs gets its iteration as
        step, where MMEngine writes 0.
    Raises:
        InputError: there is none.
    """
    path = Path(path)
    files = [path] if path.is_file() else [
        _file_in(folder) for folder in run_folders(path)]
    if not files:
        raise InputError(f'no vis_data/scalars.json in {path}')
    train, val, _ = _join(files)
    return train, val


def step_name(train: Records, val: Records) -> str:
    """Return what the steps of ``val`` count: 'epoch' or 'iteration'."""
    epochs = [record.get('epoch', 0) for record in train]
    last = val[-1]['step'] if val else 0
    return 'epoch' if last <= max(epochs, default=0) else 'iteration'


def _file_in(folder):
    return folder / 'vis_data' / 'scalars.json'


def _join(files):
    """Records of one training, and the index of its first file."""
    train, val, first = {}, {}, 0
    for i, file in enumerate(files):
        new_train, new_val = _read(file)
        if new_train:
            begin = new_train[0]['step']
            if train and begin <= min(train):
                first = i
            train = {step: record for step, record in train.items()
                     if step < begin}
            val = {step: (behind, record)
                   for step, (behind, record) in val.items() if behind < begin}
        train.update((record['step'], record) for record in new_train)
        for behind, record in new_val:
            if behind and record['step'] == 0:
                record['step'] = behind
            val[record['step']] = behind, record
    return ([train[step] for step in sorted(train)],
            [val[step][1] for step in sorted(val)], first)


def _read(file):
    """Training records, and validation records with the step they follow."""
    train, val = [], []
    for line in file.read_text().splitlines():
        if not line.endswith('}'):
            continue  # being written, or cut off with its run
        record = json.loads(line)
        if 'loss' in record:
            train.append(record)
        else:
            val.append((train[-1]['step'] if train else 0, record))
    return train, val
