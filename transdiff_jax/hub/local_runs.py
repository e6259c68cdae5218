"""Models of the hub as runs on this machine: downloaded and converted when they are first asked for.

    ~/.cache/transdiff_jax/models/OWNER--NAME/COMMIT/FILE    a run, or the weights of a tokenizer

A run appears when it is whole, and never changes.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.config import Config
from transdiff_jax.convert.conversion import import_kl16, import_transdiff
from transdiff_jax.errors import UserError
from transdiff_jax.generation import loading
from transdiff_jax.generation.trained_model import TrainedModel
from transdiff_jax.hub.bundle import CONFIG, read_bundle
from transdiff_jax.hub.published import PUBLISHED, REPO, TOKENIZER_FILE
from transdiff_jax.model.variants import published_model
from transdiff_jax.parallel.processes import in_first_process
from transdiff_jax.storage.files import locked, write_errors
from transdiff_jax.storage.hub_errors import MissingFileError
from transdiff_jax.storage.hub_files import SCHEME, HubName, fetch, parse_name, pin
from transdiff_jax.storage.paths import given_text, location, scheme_of, user_path
from transdiff_jax.storage.torch_file import require_torch

CACHE = "~/.cache/transdiff_jax/models"
_FILES = (".pth", ".pt", ".ckpt")
_RUN, _TOKENIZER = "run", "tokenizer"
_UNFINISHED = ".unfinished"
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

    def made() -> np.ndarray:
        return np.frombuffer(bytes.fromhex(_make(asked)), np.uint8)

    commit = bytes(map(int, in_first_process(made, _COMMIT_BYTES, np.int32))).hex()
    folder = _folder(asked._replace(revision=commit), asked.path or _RUN)
    if not folder.is_dir():
        raise UserError(f"{folder} is not here: all processes of a job must see {CACHE}, or be given a folder")
    return folder


def with_local_start(config: Config) -> Config:
    """The configuration with a folder as `train.init_from`, if that is a model of the hub; raises as `local_run`."""
    start = config.train.init_from
    if not start or not is_remote(start):
        return config
    folder = str(local_run(start, "config.train.init_from"))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=folder))


@functools.wraps(loading.load)
def load(workdir: str | Path, **keywords: Any) -> TrainedModel:
    """As `loading.load`, also for models of the hub."""
    return loading.load(local_run(workdir, "workdir"), **keywords)


def _make(asked: HubName) -> str:
    """Makes the run of a name if it is not there; returns the commit."""
    file = pin(asked if asked.path else asked._replace(path=CONFIG))
    run = _folder(file, asked.path or _RUN)
    tokenizer = _folder(file, TOKENIZER_FILE if asked.path else _TOKENIZER)
    if run.is_dir():
        return file.revision  # without the lock, which a folder that others made may not grant
    with _locked(run.parent):
        if not run.is_dir():
            logging.info("%s becomes a run in %s", file, run)
            if asked.path:
                _make_converted(file, run, tokenizer)
            else:
                _make_bundled(file, run, tokenizer)
    return file.revision


def _make_converted(file: HubName, run: Path, tokenizer: Path) -> None:
    checkpoint = fetch(file)
    try:
        weights = fetch(file._replace(path=TOKENIZER_FILE))
    except MissingFileError:
        logging.warning("%s has no %s: name a tokenizer to sample", file, TOKENIZER_FILE)
        decoder = ""
    else:
        if not tokenizer.is_dir():
            _whole(tokenizer, lambda out: import_kl16(weights, out))
        decoder = str(tokenizer)
    _whole(run, lambda out: import_transdiff(checkpoint, out, tokenizer=decoder))
    _warn_of_another(run, file)


def _warn_of_another(run: Path, file: HubName) -> None:
    known = next((model for model in PUBLISHED.values() if model.source.path == file.path), None)
    if file.repo == REPO and known and latest_record(run).config.model != published_model(known.size, known.kind):
        logging.warning("%s is not of the size %s and the kind %s", file, known.size, known.kind)


def _make_bundled(file: HubName, run: Path, tokenizer: Path) -> None:
    shutil.rmtree(tokenizer, ignore_errors=True)
    _whole(run, lambda out: read_bundle(lambda path: fetch(file._replace(path=path)), out, tokenizer))


def _folder(file: HubName, path: str) -> Path:
    root = user_path(CACHE, "the cache of models") / file.repo.replace("/", "--") / file.revision
    return root / path.replace("/", "--")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock"))
        yield


def _whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a folder that gets its name at the end. The caller holds the lock."""
    unfinished = folder.with_name(f".{folder.name}{_UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    write(unfinished)
    unfinished.rename(folder)
