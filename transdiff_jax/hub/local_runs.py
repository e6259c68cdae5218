"""Models of the hub as runs on this machine, downloaded and converted when they are first asked for."""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transdiff_jax.errors import UserError
from transdiff_jax.generation import loading
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.hub.making import make, make_alone, run_folder
from transdiff_jax.hub.published import PUBLISHED
from transdiff_jax.parallel.processes import do_in_every_process, in_first_process
from transdiff_jax.storage.hub_files import SCHEME, parse_name
from transdiff_jax.storage.paths import given_text, location, scheme_of
from transdiff_jax.storage.torch_file import require_torch

_FILES = (".pth", ".pt", ".ckpt")
_COMMIT_BYTES = 20


def is_remote(value: str | os.PathLike[str]) -> bool:
    """Whether a text names a model of the hub: hf://…, or a published one whose name no folder here has."""
    return scheme_of(value) == SCHEME or (os.fspath(value) in PUBLISHED and not Path(value).exists())


def local_run(value: str | os.PathLike[str], name: str) -> Path:
    """The folder of a run, downloaded and converted first if it is a model of the hub. Every process must call this.

    Args:
        value: a folder, gs://BUCKET/FOLDER, hf://OWNER/NAME, hf://OWNER/NAME/FILE.pth or a name of `PUBLISHED`.
        name: what holds it, for errors, as in `location`.

    Raises:
        UserError: it is no path and no name, or the model cannot be downloaded or converted.
    """
    if not is_remote(value):
        return location(value, name)
    text = given_text(value, name)
    asked = PUBLISHED[text].source if text in PUBLISHED else parse_name(text)
    if asked.path and not asked.path.endswith(_FILES):
        raise UserError(f"{name}={text} names neither a repository nor a {_FILES[0]} file")
    if asked.path:
        require_torch(text)  # before gigabytes are downloaded

    make_run = make if jax.process_count() == 1 else make_alone

    def made() -> np.ndarray:
        return np.frombuffer(bytes.fromhex(make_run(asked)), np.uint8)

    commit = bytes(map(int, in_first_process(made, _COMMIT_BYTES, np.int32))).hex()
    pinned = asked._replace(revision=commit)
    folder = run_folder(pinned)
    do_in_every_process(lambda: folder.is_dir() or make_run(pinned))  # on hosts that do not see what the first one made
    return folder


@functools.wraps(loading.load)
def load(workdir: str | Path, **keywords: Any) -> TrainedModel:
    """As `loading.load`, also for models of the hub."""
    return loading.load(local_run(workdir, "workdir"), **keywords)
