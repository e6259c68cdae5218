"""Trains a tiny run that keeps one step, and links every step that it commits into another folder.

python -m tests.support.archiving_trainer WORKDIR ARCHIVE DATA
"""

import os
import shutil
import sys
from pathlib import Path

from tests.support.runs import CONFIG
from transdiff_jax.checkpoints.store import CheckpointStore
from transdiff_jax.config import make_config
from transdiff_jax.training.loop import train

WORKDIR, ARCHIVE, DATA = map(Path, sys.argv[1:])
write_manifest = CheckpointStore._write_manifest


def archive_too(store):
    """Runs before a step is committed, and so before any reader sees it."""
    write_manifest(store)
    (folder,) = store.folder.glob("*.orbax-checkpoint-tmp*")
    shutil.copytree(folder, ARCHIVE / "checkpoints" / folder.name.partition(".")[0], copy_function=os.link)


CheckpointStore._write_manifest = archive_too
values = CONFIG.to_dict()
values["train"] |= {"steps": 100_000, "checkpoint_every": 1, "keep_last": 1, "log_every": 1000}
values["data"]["directory"] = str(DATA)
train(make_config(values), WORKDIR)
