"""Small real datasets: crops of two photographs that come with scikit-learn, as files and in TFDS."""

import functools
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = ("china", "flower")


@functools.cache
def photographs():
    """The photographs uint8 [427, 640, 3], by class."""
    return dict(zip(CLASSES, load_sample_images().images, strict=True))


def crop(name, number, height=20, width=28):
    """Crop number `number` of a photograph; each is from another place."""
    photo = photographs()[name]
    top, left = (37 * number) % (photo.shape[0] - height), (91 * number) % (photo.shape[1] - width)
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def encoded(image, kind="PNG", **options):
    """The file of an array or a Pillow image."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format=kind, **options)
    return file.getvalue()


def write_folder(root, count=8, names=CLASSES):
    """Writes `count` files for each class, JPEG and PNG in turn, into folders called `names`."""
    for name, folder in zip(CLASSES, names, strict=True):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            kind, suffix = (("JPEG", "JPEG"), ("PNG", "png"))[number % 2]
            (root / folder / f"{number:03d}.{suffix}").write_bytes(encoded(crop(name, number), kind))
    return root


class Photos(tfds.core.GeneratorBasedBuilder):
    """The files of a folder as a TFDS dataset."""

    VERSION = tfds.core.Version("1.0.0")
    name = "photos"
    pkg_dir_path = Path(__file__).parent

    def __init__(self, root=None, **options):
        self._root = root
        super().__init__(**options)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=CLASSES),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for path in sorted(self._root.rglob("*.*")):
            name = path.relative_to(self._root).as_posix()
            yield name, {"image": io.BytesIO(path.read_bytes()), "label": path.parent.name, "file_name": name}


def write_tfds(root, directory):
    """Prepares the files of a folder as the dataset "photos" in `directory`."""
    Photos(root, data_dir=str(directory), file_format="array_record").download_and_prepare()
    return directory
