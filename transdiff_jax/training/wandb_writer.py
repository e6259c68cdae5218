"""A run's numbers and images in Weights & Biases, an optional extra."""

import importlib
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import SupportsFloat

import numpy as np
from absl import logging
from jaxtyping import UInt8

from transdiff_jax.config import Config
from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import write_errors, write_json
from transdiff_jax.storage.json_files import JsonError, read_json_object, unreadable
from transdiff_jax.training.metric_writers import ScalarAndImageWriter

RUN_FILE = "wandb_run.json"  # holds the id, so that a resumed run goes on in the same place
PROJECT = "transdiff_jax"
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


def require_wandb() -> ModuleType:
    """Imports wandb only when a run names it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ModuleNotFoundError:
        raise UserError(
            'config.train.loggers names "wandb", which is not installed: pip install wandb (the extra wandb)'
        ) from None


class WandbWriter(ScalarAndImageWriter):
    """One run of Weights & Biases.

    The step is a metric of its own, because a resumed run repeats steps, and wandb's own steps only grow. If wandb's
    process ends, training goes on without it.
    """

    def __init__(self, config: Config, workdir: Path) -> None:
        """Starts the run, or goes on with it. The variables WANDB_MODE, WANDB_PROJECT and so on count.

        Raises:
            UserError: wandb is not installed or refuses, or the file with the run's id cannot be read or written.
        """
        wandb = require_wandb()
        self._image, self._errors = wandb.Image, (wandb.errors.Error, OSError)
        name, project = os.environ.get("WANDB_NAME", workdir.name), os.environ.get("WANDB_PROJECT", PROJECT)
        folder = os.environ.get("WANDB_DIR") or _local(workdir)
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=_run_id(workdir),
                resume="allow",
                dir=folder,
                config=config.to_dict(),
                allow_val_change=True,
                settings=wandb.Settings(console="off", silent=True),
            )
            self._run.define_metric("*", step_metric="step")
        except self._errors as error:
            raise UserError(f"wandb: {_line(error)} (WANDB_MODE=offline asks no server)") from None
        place = self._run.url or f"run {self._run.id} of project {project}"  # a disabled or offline one has no address
        logging.info("Weights & Biases: %s; its files are in %s", place, folder)

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        self._log({"step": step} | {name: float(value) for name, value in scalars.items()})

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "height width channels"]]) -> None:
        """Writes images with 1 or 3 channels."""
        self._log({"step": step} | {name: self._image(image) for name, image in images.items()})

    def _log(self, values: Mapping[str, object]) -> None:
        if self._run is None:
            return
        try:
            self._run.log(values)
        except self._errors as error:
            self._run = None
            logging.warning("wandb has failed (%s): nothing more goes there until the run is resumed", _line(error))

    def flush(self) -> None:
        pass  # its own process uploads

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish(exit_code=int(sys.exc_info()[0] is not None))  # of the error that ends the run, if any
        except self._errors as error:
            logging.warning("wandb has failed (%s): its last numbers may be missing there", _line(error))


def _local(workdir: Path) -> str:
    """Where wandb keeps its files: in the run's folder, or on this machine if that is in a bucket."""
    return tempfile.mkdtemp(prefix="transdiff_wandb_") if isinstance(workdir, BucketPath) else str(workdir)


def _run_id(workdir: Path) -> str:
    """The id in the run's folder, put there by the first call."""
    path = workdir / RUN_FILE
    try:
        name = read_json_object(path).get("id")
    except FileNotFoundError:
        name = secrets.token_hex(4)
        with write_errors(path):
            write_json(path, {"id": name})
    except OSError as error:
        raise unreadable(path, error) from None
    except JsonError as error:
        raise UserError(f"{path} {error}: remove it to start another run of wandb") from None
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise UserError(f"{path} holds no id of a run of wandb: remove it to start another one")
    return name


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
