"""PASCAL VOC annotations, checked before training starts."""

import collections
import logging
import os.path as osp
from xml.etree import ElementTree

from mmdet.datasets import XMLDataset
from mmengine import fileio
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmadder.errors import InputError
from mmadder.text import shorten

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
MAX_PROBLEMS = 5  # printed in an error
MAX_NAMES = 20  # printed in the warning


@DATASETS.register_module()
class CheckedXMLDataset(XMLDataset):
    """mmdet's ``XMLDataset`` that says what is wrong with the files.

    Takes XMLDataset's arguments and gives the same samples, except:

    - Missing or malformed files are one error that lists the first few.
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
            annotation is missing; an annotation is malformed; no object of
            the config's classes, or no picture, is left.
    """

    @property
    def sub_data_root(self):
        return self.data_prefix.get('sub_data_root', self.data_root or '')

    def load_data_list(self):
        self._check_config()
        img_ids = self._read_split()
        unknown = self._check_files(img_ids)
        data_list = super().load_data_list()
        flat, outside = self._examine_boxes(data_list)
        self._require_objects(data_list, unknown)
        self._warn(flat, outside, unknown)
        return data_list

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
        img_ids = fileio.list_from_file(
            self.ann_file, backend_args=self.backend_args)
        if not any(img_id.strip() for img_id in img_ids):
            raise InputError(f'split file {self.ann_file} is empty, expected '
                             'one picture name per line')
        return img_ids

    def _check_files(self, img_ids):
        """Raise for unusable files, return the unknown classes' counts."""
        problems, names = [], collections.Counter()
        for line, img_id in enumerate(img_ids, 1):
            try:
                if not img_id.strip():
                    raise InputError(f'{self.ann_file}: line {line} is blank')
                names.update(self._check_sample(img_id))
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise InputError(
                f'{len(problems)} of {len(img_ids)} entries of '
                f'{self.ann_file} cannot be used:\n  ' +
                shorten(problems, MAX_PROBLEMS, '\n  '))
        return {name: count for name, count in names.most_common()
                if name not in self._metainfo['classes']}

    def _check_sample(self, img_id):
        """Return the class names in the annotation of one picture."""
        picture = osp.join(self.sub_data_root, self.img_subdir,
                           f'{img_id}.jpg')
        annotation = osp.join(self.sub_data_root, self.ann_subdir,
                              f'{img_id}.xml')
        for kind, path in dict(picture=picture, annotation=annotation).items():
            if not fileio.exists(path, backend_args=self.backend_args):
                raise InputError(f'{kind} {path} does not exist')
        text = fileio.get(annotation, backend_args=self.backend_args)
        try:
            return check_annotation(ElementTree.fromstring(text))
        except ElementTree.ParseError as error:
            raise InputError(
                f'annotation {annotation} is not XML: {error}') from error
        except InputError as error:
            raise InputError(f'annotation {annotation}: {error}') from error

    def _examine_boxes(self, data_list):
        """Ignore boxes without area in training; return what was found.

        Returns:
            (flat, outside): the annotation files of the boxes without area,
            and the number of boxes that reach outside their picture.
        """
        flat, outside = [], 0
        for info in data_list:
            for instance in info['instances']:
                x1, y1, x2, y2 = instance['bbox']
                width, height = info['width'], info['height']
                # Tools disagree on whether the first pixel is 0 or 1: one
                # pixel is not outside.
                outside += (min(x1, y1) < -1 or x2 > width or y2 > height)
                if (min(x2, width) <= max(x1, 0)
                        or min(y2, height) <= max(y1, 0)):
                    flat.append(osp.basename(info['xml_path']))
                    if not self.test_mode:
                        instance['ignore_flag'] = 1
        return flat, outside

    def _require_objects(self, data_list, unknown):
        if not any(instance['ignore_flag'] == 0 for info in data_list
                   for instance in info['instances']):
            raise InputError(
                f'no object is left in {self.ann_file}: the config has the '
                f'classes {tuple(self._metainfo["classes"])}, the '
                f'annotations have {unknown or "none that can be used"}')

    def _warn(self, flat, outside, unknown):
        findings = []
        if flat:
            use = ('counted as in XMLDataset' if self.test_mode else
                   'ignored in training')
            findings.append(f'boxes without area ({use}): {len(flat)}, in ' +
                            shorten(flat, MAX_NAMES))
        if outside:
            findings.append(
                f'boxes that reach outside their picture (kept): {outside}')
        if unknown:
            counts = [f'{name} ({count})' for name, count in unknown.items()]
            findings.append('objects left out, their class is not in the '
                            'config: ' + shorten(counts, MAX_NAMES))
        if findings:
            print_log('\n  '.join([f'{self.ann_file}:', *findings]),
                      logger='current', level=logging.WARNING)


def check_annotation(root):
    """Check one parsed VOC annotation and return its objects' classes.

    Args:
        root (Element): the ``<annotation>`` element.
    Returns:
        list of str, one per ``<object>``.
    Raises:
        InputError: ``<size>``, ``<name>`` or ``<bndbox>`` is missing or holds
            no usable number.
    """
    size = root.find('size')
    if size is None:
        raise InputError('has no <size>')
    for tag in ('width', 'height'):
        if _number(size, tag, int) < 1:
            raise InputError(f'<size> needs a positive <{tag}>')
    return [_check_object(number, element) for number, element
            in enumerate(root.findall('object'), 1)]


def _check_object(number, element):
    name, box = element.findtext('name'), element.find('bndbox')
    if not name:
        raise InputError(f'object {number} has no <name>')
    if box is None:
        raise InputError(f'object {number} ({name}) has no <bndbox>')
    x1, y1, x2, y2 = (_number(box, tag, _whole) for tag in CORNERS)
    if x2 < x1 or y2 < y1:
        raise InputError(f'object {number} ({name}) has xmin > xmax or '
                         f'ymin > ymax: {x1}, {y1}, {x2}, {y2}')
    if element.find('difficult') is not None:
        _number(element, 'difficult', int)
    return name


def _whole(text):
    """Read '12' or '12.7' as XMLDataset does."""
    return int(float(text))


def _number(element, tag, read):
    text = element.findtext(tag)
    try:
        return read(text)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f'<{element.tag}> needs a number in <{tag}>, got '
                         f'{text!r}') from error
