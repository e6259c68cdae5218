"""Opens the source of images that the configuration names."""

import re
from pathlib import Path

import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError

from transdiff_jax.config import DataConfig
from transdiff_jax.config.schema import FOLDER_PREFIX, TFDS_PREFIX
from transdiff_jax.data.sources.base import Source
from transdiff_jax.data.sources.digits import prepare_digits
from transdiff_jax.data.sources.folder import FolderSource, classes_of
from transdiff_jax.data.sources.folder_list import class_folders
from transdiff_jax.data.sources.list_file import list_once
from transdiff_jax.data.sources.tfds import TfdsSource, damaged
from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.paths import location, user_path

# A dataset of TFDS itself: a namespace before the name could make TFDS fetch code.
_NAME = re.compile(r"\w+(/[\w.,=+-]+)?(:[\d.*]+)?", re.ASCII)
_REFUSED = "Failed to construct dataset"
_LOCAL_FOLDERS = (
    "image files are read from local folders only: copy or mount it, and cache its latents in the bucket "
    "(transdiff cache_latents), which training reads from there"
)


def class_names(config: DataConfig) -> tuple[str, ...]:
    """The classes of the images that a configuration names; lists no images. Raises like `open_source`."""
    if config.source.startswith(FOLDER_PREFIX):
        return classes_of(class_folders(_folder(config)))[0]
    return open_source(config).class_names


def _folder(config: DataConfig) -> Path:
    return user_path(config.source.removeprefix(FOLDER_PREFIX), "config.data.source", _LOCAL_FOLDERS)


def open_source(config: DataConfig, kept: Path | None = None) -> Source:
    """Opens the images that a configuration names.

    Args:
        config: names them.
        kept: a folder of the job, which all its processes see: one process lists an image folder, and the list stays
            there. Every process must call this then. None: this process lists an image folder for itself.

    Raises:
        UserError: the folder, the dataset or its split does not exist, is not prepared, or cannot be used.
    """
    if config.source.startswith(FOLDER_PREFIX):
        folder = _folder(config)
        return FolderSource(folder, config.image_channels, None if kept is None else list_once(folder, kept))
    place = user_path if config.source == "digits" else location  # the digits are prepared there
    directory = place(config.directory, "config.data.directory")
    try:
        if config.source == "digits":
            builder = prepare_digits(str(directory))
        else:
            builder = _prepared_builder(config.source.removeprefix(TFDS_PREFIX), directory)
        return TfdsSource(builder, config.split, config.image_channels)
    except OSError as error:
        raise UserError(f"config.data.directory={config.directory!r} cannot hold the dataset: {error}") from None
    except (
        ParseError,
        ValueError,
        AssertionError,
        RuntimeError,
    ) as error:  # from TFDS, for files that it does not read
        raise damaged(directory, error) from None


def _prepared_builder(name: str, directory: Path) -> tfds.core.DatasetBuilder:
    field = f"config.data.source={TFDS_PREFIX + name!r}"
    if not _NAME.fullmatch(name):
        raise UserError(f"{field} must be {TFDS_PREFIX}NAME, {TFDS_PREFIX}NAME/CONFIG or one of these with :1.0.0")
    try:
        builder = tfds.builder(name, data_dir=str(directory), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"{field}: TFDS knows no dataset of that name") from None
    except (ValueError, TypeError, AssertionError) as error:  # of such a configuration or version
        if _REFUSED not in str(error):
            raise
        raise UserError(f"{field}: TFDS cannot make it: {str(error).splitlines()[0]}") from None
    if not builder.is_prepared() and isinstance(directory, BucketPath):
        raise UserError(
            f"{field} is not prepared in {directory} (config.data.directory), and a dataset cannot be prepared in a "
            "bucket: prepare it in a local folder, then copy that folder (gcloud storage cp -r)"
        )
    if not builder.is_prepared():
        raise UserError(
            f"{field} is not prepared in {directory} (config.data.directory): first "
            f"run `tfds build {name} --file_format=array_record --data_dir={directory}`, which needs TensorFlow"
        )
    return builder
