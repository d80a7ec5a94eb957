"""A small VOC-format detection set of real handwritten digits.

scikit-learn carries 1,797 scanned digits of 8x8 pixels (UCI, Alpaydin and
Kaynak). They are scaled up, coloured and scattered over textured scenes. The
splits share no source digit, so a detector is tested on handwriting that it
has never seen.
"""
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from tqdm import tqdm

from mmadder.errors import InputError

CLASSES = tuple('0123456789')
SPLITS = ('train', 'val', 'test')
SOURCE_SHARES = (0.7, 0.1, 0.2)  # of the digits, for each split
STAMP = 'digits.json'  # written last: a set without it is not whole
JPEG_QUALITY = 95
ALPHA_INK = 0.25  # opacity from which a pixel belongs to the digit


def make_digits(out,
                scenes=(1200, 200, 300),
                crops=(4000, 500, 500),
                size=128,
                crop_size=48,
                digits_per_scene=(2, 6),
                seed=0):
    """Write the set, unless it is there already.

    Layout: ``VOC2007/{JPEGImages,Annotations,ImageSets/Main}`` (PASCAL VOC
    XML, corners 1-based and inclusive) for detection and
    ``crops/{train,val,test}/<class>/`` for classification. The extra tag
    ``<source>`` of an object is its index in scikit-learn's set. The same
    arguments give the same files.

    Args:
        out (str | Path): folder to write.
        scenes, crops (tuple): pictures of the train, val and test split.
        size (int): side of a scene in pixels; digits are a tenth to a half
            of it.
        crop_size (int): side of a crop in pixels.
        digits_per_scene (tuple): least and most.
        seed (int): of everything drawn.

    Returns:
        bool: False if the set was there already.

    Raises:
        InputError: ``out`` holds something else, or an argument is out of
            its range.
        ImportError: scikit-learn is missing.
    """
    settings = dict(scenes=list(scenes), crops=list(crops), size=size,
                    crop_size=crop_size,
                    digits_per_scene=list(digits_per_scene), seed=seed)
    _check_settings(settings)
    out = Path(out)
    if out.exists():
        _require_same(out, settings)
        return False
    partial = out.with_name(f'{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    sources = _split_sources(seed)
    for index, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, index])
        print(f'{split}: {scenes[index]} scenes, {crops[index]} crops')
        _write_scenes(partial / 'VOC2007', split, scenes[index], size,
                      digits_per_scene, sources[split], rng)
        _write_crops(partial / 'crops' / split, crops[index], crop_size,
                     sources[split], rng)
    (partial / STAMP).write_text(json.dumps(settings, indent=1))
    partial.rename(out)
    return True


def _check_settings(settings):
    for name in ('scenes', 'crops'):
        counts = settings[name]
        if len(counts) != len(SPLITS) or min(counts) < 1:
            raise InputError(f'{name} needs a positive number for each of '
                             f'{SPLITS}, got {counts}')
    least, most = settings['digits_per_scene']
    if not 1 <= least <= most <= 8:
        raise InputError('digits_per_scene must be within 1 and 8, got '
                         f'{least} to {most}')
    for name, smallest in (('size', 80), ('crop_size', 24)):
        if settings[name] < smallest:
            raise InputError(f'{name} must be at least {smallest} pixels, '
                             f'got {settings[name]}')


def _require_same(out, settings):
    """Raise unless `out` holds a whole set made with these settings."""
    stamp = out / STAMP
    if not stamp.is_file():
        raise InputError(f'{out} exists but is not a set of digits made by '
                         'this tool; name another folder')
    made = json.loads(stamp.read_text())
    if made != settings:
        raise InputError(f'{out} was made with other settings ({made}); '
                         'remove it or name another folder')


class _Source:
    """Source digits of one split.

    Attributes:
        indices: their numbers in scikit-learn's set.
        labels: 0 to 9 for each of the whole set.
        alphas: (1797, 8, 8), opacity 0 to 1.
    """

    def __init__(self, indices, labels, alphas):
        self.indices, self.labels, self.alphas = indices, labels, alphas

    def draw(self, rng, side):
        """Return (index, opacity) of a random digit, ink `side` high."""
        index = int(rng.choice(self.indices))
        return index, _scaled_ink(self.alphas[index], side)


def _split_sources(seed):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('the digits come with scikit-learn, which is not '
                          'installed: pip install scikit-learn') from error
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    ends = np.cumsum(np.array(SOURCE_SHARES[:-1]) * len(order)).astype(int)
    alphas = (digits.images / digits.images.max()).astype(np.float32)
    return {split: _Source(np.sort(indices), digits.target, alphas)
            for split, indices in zip(SPLITS, np.split(order, ends))}


def _scaled_ink(alpha, side):
    """Scale a digit up and trim it so that its longer side is `side`."""
    ink = _trimmed(alpha, side / 8)
    # Once more, now that the trimmed size is known.
    return _trimmed(alpha, side / max(ink.shape) * side / 8)[:side, :side]


def _trimmed(alpha, scale):
    scaled = cv2.resize(alpha, None, fx=scale, fy=scale,
                        interpolation=cv2.INTER_CUBIC).clip(0, 1)
    rows, columns = (np.flatnonzero((scaled > ALPHA_INK).any(axis))
                     for axis in (1, 0))
    return scaled[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _background(rng, height, width):
    """Dark, uneven, sometimes striped."""
    base = rng.uniform(20, 90, 3)
    coarse = rng.normal(0, 14, (rng.integers(3, 9), rng.integers(3, 9), 3))
    texture = cv2.resize(coarse.astype(np.float32), (width, height),
                         interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 24)
        y, x = np.mgrid[:height, :width]
        phase = (x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period
        texture += (rng.uniform(4, 16) * np.sin(phase))[..., None]
    noise = rng.normal(0, 4, (height, width, 3))
    return base + texture + noise


def _paint(picture, ink, x, y, rng):
    colour = rng.uniform(150, 255, 3)
    area = picture[y:y + ink.shape[0], x:x + ink.shape[1]]
    area += ink[..., None] * (colour - area)


def _place(rng, size, ink, boxes, tries=50):
    """Return a free (x, y) for `ink`, or None; boxes are (x1, y1, x2, y2)."""
    height, width = ink.shape
    for _ in range(tries):
        x, y = (int(rng.integers(0, size - side + 1))
                for side in (width, height))
        if all(x >= x2 + 2 or x + width + 2 <= x1 or y >= y2 + 2
               or y + height + 2 <= y1 for x1, y1, x2, y2 in boxes):
            return x, y
    return None


def _draw_scene(size, digits_per_scene, source, rng):
    """Return (picture, objects), objects as (index, (x1, y1, x2, y2))."""
    least, most = digits_per_scene
    wanted = int(rng.integers(least, most + 1))
    while True:
        picture, objects = _background(rng, size, size), []
        for _ in range(wanted):
            # Small sides are likelier, as there is more room for them.
            side = int(size * np.exp(rng.uniform(*np.log([0.1, 0.5]))))
            side = max(side, -(-size // 10))
            index, ink = source.draw(rng, side)
            place = _place(rng, size, ink, [box for _, box in objects])
            if place is not None:
                _paint(picture, ink, *place, rng)
                x, y = place
                objects.append((index, (x, y, x + ink.shape[1],
                                        y + ink.shape[0])))
        if len(objects) >= least:
            return picture, objects


def _annotation(name, size, objects, labels):
    root = ElementTree.Element('annotation')
    ElementTree.SubElement(root, 'filename').text = f'{name}.jpg'
    _add_numbers(ElementTree.SubElement(root, 'size'), width=size,
                 height=size, depth=3)
    for index, (x1, y1, x2, y2) in objects:
        element = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(element, 'name').text = CLASSES[labels[index]]
        _add_numbers(element, source=index, truncated=0, difficult=0)
        _add_numbers(ElementTree.SubElement(element, 'bndbox'),
                     xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def _add_numbers(parent, **numbers):
    for tag, number in numbers.items():
        ElementTree.SubElement(parent, tag).text = str(number)


def _write_scenes(root, split, count, size, digits_per_scene, source, rng):
    folders = [root / name for name in (
        'JPEGImages', 'Annotations', 'ImageSets/Main')]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    pictures, annotations, splits = folders
    names = [f'{split}_{i:05d}' for i in range(count)]
    for name in tqdm(names, f'{split} scenes', disable=None):
        picture, objects = _draw_scene(size, digits_per_scene, source, rng)
        _write_picture(pictures / f'{name}.jpg', picture)
        (annotations / f'{name}.xml').write_text(
            _annotation(name, size, objects, source.labels))
    (splits / f'{split}.txt').write_text('\n'.join(names) + '\n')


def _write_crops(root, count, size, source, rng):
    for label in CLASSES:
        (root / label).mkdir(parents=True)
    for i in range(count):
        index, ink = source.draw(rng, int(rng.integers(20, size - 3)))
        picture = _background(rng, size, size)
        x, y = (int(rng.integers(0, size - side + 1))
                for side in reversed(ink.shape))
        _paint(picture, ink, x, y, rng)
        label = CLASSES[source.labels[index]]
        _write_picture(root / label / f'{i:05d}.jpg', picture)


def _write_picture(path, picture):
    pixels = picture.clip(0, 255).round().astype(np.uint8)
    if not cv2.imwrite(str(path), pixels,
                       [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise OSError(f'{path} could not be written; is the disk full?')
