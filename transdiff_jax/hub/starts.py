"""Training that starts from models of the hub."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from transdiff_jax.config import Config, as_config
from transdiff_jax.distillation import student_run
from transdiff_jax.hub.local_runs import is_remote, local_run
from transdiff_jax.parallel.profiling import Profile
from transdiff_jax.training import loop


@functools.wraps(loop.train)
def train(
    config: Config | Mapping[str, Any] | ConfigDict | str | Path, workdir: str | Path, profile: Profile | None = None
) -> None:
    """As `loop.train`, also from models of the hub."""
    loop.train(_with_local_start(as_config(config)), workdir, profile)


@functools.wraps(student_run.distill)
def distill(
    config: Config | Mapping[str, Any] | ConfigDict | str | Path, workdir: str | Path, profile: Profile | None = None
) -> None:
    """As `student_run.distill`, also of models of the hub."""
    student_run.distill(_with_local_start(as_config(config)), workdir, profile)


def _with_local_start(config: Config) -> Config:
    """The configuration with a folder as `train.init_from`, if that is a model of the hub; raises as `local_run`."""
    start = config.train.init_from
    if not start or not is_remote(start):
        return config
    folder = str(local_run(start, "config.train.init_from"))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=folder))
