"""Makes runs of models of the hub.

    ~/.cache/transdiff_jax/models/OWNER--NAME/COMMIT/FILE    a run, or the weights of a tokenizer

A run appears when it is whole, and never changes. python -m transdiff_jax.hub.making NAME makes one in a process of its
own: see `make_alone`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.convert.conversion import import_kl16, import_transdiff
from transdiff_jax.errors import UserError
from transdiff_jax.hub.bundle import CONFIG, read_bundle
from transdiff_jax.hub.published import PUBLISHED, REPO, TOKENIZER_FILE
from transdiff_jax.model.variants import published_model
from transdiff_jax.storage.files import locked, write_errors
from transdiff_jax.storage.hub_errors import MissingFileError
from transdiff_jax.storage.hub_files import HubName, fetch, parse_name, pin
from transdiff_jax.storage.paths import user_path

CACHE = "~/.cache/transdiff_jax/models"
_RUN, _TOKENIZER = "run", "tokenizer"
_UNFINISHED = ".unfinished"
_REFUSED = 2  # the exit code for what a user can fix


def make_alone(asked: HubName) -> str:
    """Like `make`, in a process of its own, for a process that belongs to a job of several.

    A checkpoint is written by all processes of a job together, so that one of them cannot write one.
    """
    command = [sys.executable, "-m", "transdiff_jax.hub.making", str(asked)]
    made = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, text=True)
    if made.returncode == _REFUSED:
        raise UserError(made.stdout.strip())
    made.check_returncode()
    return made.stdout.strip()


def make(asked: HubName) -> str:
    """Makes the run of a name if it is not there.

    Args:
        asked: a repository, or a checkpoint in it.

    Returns:
        The commit that the revision means now.

    Raises:
        UserError: the model cannot be downloaded or converted.
    """
    file = pin(asked if asked.path else asked._replace(path=CONFIG))
    run = run_folder(asked._replace(revision=file.revision))
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


def run_folder(pinned: HubName) -> Path:
    """Where the run of a repository, or of a checkpoint, at a commit is."""
    return _folder(pinned, pinned.path or _RUN)


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


def main(name: str) -> None:
    """Makes a run and prints its commit, or prints what a user can fix."""
    try:
        print(make(parse_name(name)))
    except UserError as error:
        print(error)
        sys.exit(_REFUSED)


if __name__ == "__main__":
    main(sys.argv[1])
