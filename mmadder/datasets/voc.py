"""PASCAL VOC annotations, checked before training starts."""

import collections
import logging
import os
import os.path as osp

from mmdet.datasets import XMLDataset
from mmengine import fileio
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmadder.errors import InputError
from mmadder.text import shorten

from .loading import name_pictures_in_errors
from .picture_headers import PictureHeader, read_header
from .voc_files import SUFFIXES, decode, parse_annotation, picture_names

MAX_PROBLEMS = 5  # printed in an error
MAX_NAMES = 20  # printed in the warning


@DATASETS.register_module()
class CheckedXMLDataset(XMLDataset):
    """mmdet's ``XMLDataset`` that reads what tools write, and checks it.

    Takes XMLDataset's arguments, and gives the same samples of files as
    MMDetection expects them. Beyond that:

    - Pictures may end with .jpg, .jpeg, .png, .bmp, .webp or .tif, in any
      case and mixed. Annotations and split files may be of any encoding;
      :mod:`mmadder.datasets.voc_files` says what else is read.
    - The header of each picture is read, and width and height are those that
      it is loaded with: ``<size>`` may lack. Where the two differ, by a factor
      or because the picture is turned (EXIF), boxes may lie beside their
      objects: one warning names the pictures.
    - Missing, truncated or malformed files are one error that lists the first
      few. A picture that cannot be decoded later on is named, too.
    - In training a box without area inside the picture gets
      ``ignore_flag=1``: its regression target is log(0), which makes the
      loss NaN. In evaluation it stays, so that figures compare with
      XMLDataset's.
    - Such boxes, boxes that reach outside the picture and classes that the
      config does not know are reported in one warning per split. Boxes that
      reach outside are left as they are: mmdet's ``Resize`` clips them for
      training, and evaluation compares with the boxes of the file.
    - ``data_prefix`` may be left out: the data root then holds the folders.

    Being no ``VOCDataset`` it leaves ``dataset_type`` out of its metainfo, so
    that VOCMetric prints the config's classes also below a VOC2007 folder.

    Raises:
        InputError: no classes; the data root, the split, a picture or an
            annotation is missing or damaged; no object of the config's
            classes, or no picture, is left.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name_pictures_in_errors(self.pipeline)

    @property
    def sub_data_root(self):
        return self.data_prefix.get('sub_data_root', self.data_root or '')

    def load_data_list(self):
        data_list, problems = self.read_samples()
        if problems:
            raise InputError(
                f'{len(problems)} of {len(problems) + len(data_list)} entries '
                f'of {self.ann_file} cannot be used:\n  ' +
                shorten(problems, MAX_PROBLEMS, '\n  '))
        self.require_objects(data_list)
        self.findings.warn()
        return data_list

    def read_samples(self) -> tuple[list[dict], list[str]]:
        """Read every entry of the split, and fill ``findings``.

        Returns:
            MMDetection's information on each picture that can be used, and
            what is wrong with each of the others.
        Raises:
            InputError: no classes, no data root, no split.
        """
        self._check_config()
        self.cat2label = {name: i for i, name
                          in enumerate(self._metainfo['classes'])}
        self.findings = Findings(self.ann_file, self.test_mode)
        data_list, problems = [], []
        names = self._read_split()
        pictures = self._list_pictures()
        for name in names:
            try:
                data_list.append(self._read_sample(name, pictures))
            except InputError as error:
                problems.append(str(error))
        return data_list, problems

    def filter_data(self):
        kept = super().filter_data()
        if not kept:
            raise InputError(
                f'none of the {len(self.data_list)} pictures of '
                f'{self.ann_file} passes filter_cfg={self.filter_cfg}')
        return kept

    def _check_config(self):
        classes = self._metainfo.get('classes')
        if not classes or isinstance(classes, str):
            raise InputError('metainfo needs classes, a tuple of names such '
                             f"as dict(classes=('cell', )), got {classes!r}")
        if len(set(classes)) < len(classes):
            raise InputError(f'metainfo has a class twice: {classes}')
        if self.test_mode and self.bbox_min_size is not None:
            raise InputError('filter_cfg has bbox_min_size, which is for '
                             'training; take it out of the test dataset')

    def _read_split(self):
        """Return the picture names of the split file, in order."""
        root = self.sub_data_root
        if root and not fileio.isdir(root, backend_args=self.backend_args):
            raise InputError(f'data root {root} is not a directory, expected '
                             f'one with {self.img_subdir} and '
                             f'{self.ann_subdir}')
        if not fileio.isfile(self.ann_file, backend_args=self.backend_args):
            raise InputError(f'split file {self.ann_file!r} does not exist, '
                             'expected one picture name per line')
        content = fileio.get(self.ann_file, backend_args=self.backend_args)
        try:
            lines = decode(content).splitlines()
        except InputError as error:
            raise InputError(f'split file {self.ann_file} {error}') from error
        names = picture_names(lines, lambda name: fileio.isfile(
            self._annotation_path(name), backend_args=self.backend_args))
        if not names:
            raise InputError(f'split file {self.ann_file} is empty, expected '
                             'one picture name per line')
        return names

    def _annotation_path(self, name):
        return osp.join(self.sub_data_root, self.ann_subdir, f'{name}.xml')

    def _list_pictures(self):
        """Return {stem: file names} of a local picture folder, else None."""
        folder = osp.join(self.sub_data_root, self.img_subdir)
        if self.backend_args is not None or not osp.isdir(folder):
            return None
        stems = collections.defaultdict(list)
        for name in os.listdir(folder):
            stem, suffix = osp.splitext(name)
            if suffix.lower() in SUFFIXES:
                stems[stem].append(name)
        return stems

    def _read_sample(self, name, pictures):
        """Return MMDetection's information on one picture."""
        path = self._annotation_path(name)
        # Names such as a/b lie in folders of their own.
        found = [osp.basename(f'{name}.jpg')] if pictures is None else \
            pictures.get(name) or self._in_subfolder(name)
        if not found:
            missing = osp.join(self.sub_data_root, self.img_subdir, name)
            raise InputError(
                f'picture {missing}.jpg does not exist, nor with another of '
                f'the suffixes {", ".join(SUFFIXES[1:])}')
        if not fileio.isfile(path, backend_args=self.backend_args):
            raise InputError(f'annotation {path} does not exist')
        try:
            annotation = parse_annotation(
                fileio.get(path, backend_args=self.backend_args))
        except InputError as error:
            raise InputError(f'annotation {path}: {error}') from error
        picture = osp.join(
            self.sub_data_root, self.img_subdir, osp.dirname(name),
            _choose(found, annotation.filename))
        width, height = self._picture_size(picture, annotation, path,
                                           local=pictures is not None)
        return dict(
            img_path=picture, img_id=name, xml_path=path, height=height,
            width=width, instances=self._instances(
                annotation.objects, (width, height), path))

    def _in_subfolder(self, name):
        if not osp.dirname(name):
            return []
        folder = osp.join(self.sub_data_root, self.img_subdir,
                          osp.dirname(name))
        return [file for file in (os.listdir(folder) if osp.isdir(folder)
                                  else ())
                if osp.splitext(file)[0] == osp.basename(name)
                and osp.splitext(file)[1].lower() in SUFFIXES]

    def _picture_size(self, picture, annotation, path, local):
        if not local:
            if not fileio.isfile(picture, backend_args=self.backend_args):
                raise InputError(f'picture {picture} does not exist')
            if annotation.size is None:
                raise InputError(f'annotation {path}: has no <size>')
            return annotation.size
        header = read_header(picture)
        self.findings.compare(osp.basename(picture), header, annotation)
        return header.width, header.height

    def _instances(self, objects, size, path):
        instances = []
        for element in objects:
            if element.name not in self.cat2label:
                self.findings.unknown[element.name] += 1
                continue
            for x1, y1, x2, y2 in element.boxes:
                box = [x1 - 1, y1 - 1, x2 - 1, y2 - 1]  # counted from 0
                small = self.bbox_min_size is not None and (
                    min(x2 - x1, y2 - y1) < self.bbox_min_size)
                flat = self.findings.examine(box, size, path)
                instances.append(dict(
                    ignore_flag=int(element.difficult or small
                                    or flat and not self.test_mode),
                    bbox=box, bbox_label=self.cat2label[element.name]))
        return instances

    def require_objects(self, data_list: list[dict]) -> None:
        """Raise InputError if no sample has an object to learn."""
        if not any(instance['ignore_flag'] == 0 for info in data_list
                   for instance in info['instances']):
            unknown = dict(self.findings.unknown.most_common())
            raise InputError(
                f'no object is left in {self.ann_file}: the config has the '
                f'classes {tuple(self._metainfo["classes"])}, the '
                f'annotations have {unknown or "none that can be used"}')


def _choose(names, wanted):
    """Of several pictures of one name take the annotation's, else .jpg."""
    if wanted in names:
        return wanted
    return min(names, key=lambda name: (SUFFIXES.index(
        osp.splitext(name)[1].lower()), name))


class Findings:
    """What is worth a warning in one split.

    Attributes:
        flat (list[str]): annotation files, one for each box without area.
        outside (list[str]): those of boxes that reach outside.
        unknown (Counter): objects by class that the config does not have.
        exchanged, scaled, sizes_only (list[str]): pictures whose size is not
            the one that their annotation names: its width and height
            exchanged, another factor, or exchanged while the boxes fit.
    """

    def __init__(self, split, test_mode):
        self.split, self.test_mode = split, test_mode
        self.flat, self.outside = [], []
        self.unknown = collections.Counter()
        self.exchanged, self.scaled, self.sizes_only = [], [], []

    def compare(self, name: str, header: PictureHeader, annotation) -> None:
        """Note where ``<size>`` is not what the picture is loaded with."""
        size, own = annotation.size, (header.width, header.height)
        if size is None or size == own:
            return
        if size != own[::-1]:
            self.scaled.append(f'{name} ({own[0]}x{own[1]}, annotated as '
                               f'{size[0]}x{size[1]})')
        elif _fits(annotation, own) and not _fits(annotation, size):
            self.sizes_only.append(name)
        else:
            self.exchanged.append(f'{name} ({own[0]}x{own[1]}'
                                  f'{", by EXIF" * header.turned})')

    def examine(self, box, size, path) -> bool:
        """Note a box; return whether it has no area inside the picture."""
        x1, y1, x2, y2 = box
        width, height = size
        # Tools disagree on whether the first pixel is 0 or 1: one pixel is
        # not outside.
        if min(x1, y1) < -1 or x2 > width or y2 > height:
            self.outside.append(osp.basename(path))
        flat = (min(x2, width) <= max(x1, 0)
                or min(y2, height) <= max(y1, 0))
        if flat:
            self.flat.append(osp.basename(path))
        return flat

    def sentences(self, most: int = MAX_NAMES) -> list[str]:
        """What was found, a sentence each with so many names at most."""
        found = []
        if self.exchanged:
            found.append(
                'pictures whose width and height are exchanged against their '
                f'annotation: {len(self.exchanged)}. Their boxes are most '
                'likely beside their objects: turn the pictures, or the '
                'annotations, or load with color_type='
                "'color_ignore_orientation' if EXIF turns them: "
                + shorten(self.exchanged, most))
        if self.scaled:
            found.append(
                'pictures of another size than their annotation names: '
                f'{len(self.scaled)}. Boxes are taken as pixels of the '
                'picture; if they are of the other size, scale them: '
                + shorten(self.scaled, most))
        if self.sizes_only:
            found.append(
                '<size> has width and height exchanged, the boxes fit '
                f'(nothing to do): {len(self.sizes_only)}, '
                + shorten(self.sizes_only, most))
        if self.flat:
            use = ('counted as in XMLDataset' if self.test_mode else
                   'ignored in training')
            found.append(f'boxes without area ({use}): {len(self.flat)}, in '
                         + shorten(self.flat, most))
        if self.outside:
            found.append('boxes that reach outside their picture (kept): '
                         f'{len(self.outside)}, in '
                         + shorten(self.outside, most))
        if self.unknown:
            counts = [f'{name} ({count})'
                      for name, count in self.unknown.most_common()]
            found.append('objects left out, their class is not in the '
                         'config: ' + shorten(counts, most))
        return found

    def warn(self) -> None:
        """Log one warning of all, if there is any."""
        found = self.sentences()
        if found:
            print_log('\n  '.join([f'{self.split}:', *found]),
                      logger='current', level=logging.WARNING)


def _fits(annotation, size):
    return all(x2 <= size[0] + 1 and y2 <= size[1] + 1
               for element in annotation.objects
               for _, _, x2, y2 in element.boxes)
