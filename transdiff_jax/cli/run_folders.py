"""Flags that name a run, which may be a model of the hub."""

from pathlib import Path

from absl import flags

from transdiff_jax.hub.local_runs import local_run


def run_folder(flag: flags.FlagHolder[str] | flags.FlagHolder[str | None]) -> Path:
    """The folder of the run that a flag names; raises like `local_run`."""
    return local_run(flag.value or "", f"--{flag.name}")
