"""The embedded dataset: scikit-learn's 1,797 scanned digits as a TFDS dataset in ArrayRecord files."""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import locked

HELD_OUT_EVERY = 5  # every fifth scan is in the test split
MAX_VALUE = 16  # of a scan's pixels
LOCK = ".lock"


def require_demo(*packages: str) -> None:
    """Raises a UserError unless packages of the extra `demo` are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"the digits need {package}, which is not installed: pip install 'transdiff_jax[demo]'")


class Digits(tfds.core.GeneratorBasedBuilder):
    """Real 8x8 grey digits: 1,437 in "train", 360 in "test"."""

    VERSION = tfds.core.Version("1.0.0")
    name = "digits"
    pkg_dir_path = Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, description=str(self.__doc__))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # the scans come with scikit-learn
        return {"train": self._generate_examples(False), "test": self._generate_examples(True)}

    def _generate_examples(self, held_out: bool) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits  # slow to load, and needed once

        pixels, labels = load_digits(return_X_y=True)
        for index, (image, label) in enumerate(zip(pixels.reshape(-1, 8, 8), labels, strict=True)):
            if (index % HELD_OUT_EVERY == 0) == held_out:
                # Encoded here: TFDS would need TensorFlow to encode an array.
                file = io.BytesIO()
                Image.fromarray(np.round(image * 255 / MAX_VALUE).astype(np.uint8)).save(file, format="PNG")
                file.seek(0)
                yield index, {"image": file, "label": int(label)}


def prepare_digits(directory: str) -> tfds.core.DatasetBuilder:
    """The builder of the dataset. On first use one process prepares it in `directory`, and the others wait.

    Raises:
        UserError: it is not prepared yet, and scikit-learn is not installed.
    """
    builder = Digits(data_dir=directory, file_format="array_record")
    if builder.is_prepared():
        return builder
    require_demo("sklearn")
    root = Path(builder.data_path).parent
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK):
        builder = Digits(data_dir=directory, file_format="array_record")
        builder.download_and_prepare()
    return builder
