"""Starts and ends every command line: flags, log format, and one line with exit code 2 for what a user can fix."""

import contextlib
import functools
import itertools
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags
from ml_collections import config_flags

from transdiff_jax.cli.compile_cache import use_compile_cache
from transdiff_jax.cli.explanations import explain
from transdiff_jax.cli.log_lines import log_warnings_only, set_up_logging
from transdiff_jax.cli.quiet_end import CODE, drop_output, nobody_reads, open_closed_streams, quiet_end
from transdiff_jax.config import Config, make_config
from transdiff_jax.config.build import check_fields
from transdiff_jax.errors import UserError
from transdiff_jax.parallel import job, libtpu, progress, signals
from transdiff_jax.storage.paths import location, user_path

USER_ERROR_CODE = 2
LARGEST_CONFIG = 2**24  # bytes


def run(
    main: Callable[..., None],
    flag_values: flags.FlagValues,
    *,
    files: bool = False,
    several: bool = False,
    rerun: str = "starts again",
) -> None:
    """Parses the command line into `flag_values`, calls `main` and exits.

    Each command has its own flags, not absl's global ones, so that commands can be imported side by side.

    Args:
        main: the work of the command.
        flag_values: its flags.
        files: whether it takes file names beside flags; `main` is then called with their list.
        several: whether processes of one job may share the work (`transdiff_jax.parallel.job`).
        rerun: what the same command does after a signal has ended this one.
    """
    open_closed_streams()
    signals.end_on_signals(functools.partial(_last_line, rerun), job.leave)
    set_up_logging()
    libtpu.set_up(os.environ)

    def start(argv: list[str]) -> None:
        use_compile_cache(flag_values)
        command = functools.partial(main, argv[1:]) if files else main
        _guarded(functools.partial(_in_job, command) if several else command)

    with quiet_end():
        app.run(start, flags_parser=functools.partial(_parse, flag_values, files))


def define_config(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines the flag --config, with an override for each field of the configuration."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Configuration file; any field is overridden by --config.section.field=value.",
        lock_config=True,
        flag_values=flag_values,
    )


def read_config(holder: flags.FlagHolder) -> Config:
    """The validated configuration of a `config_flags` flag.

    Raises:
        UserError: the file cannot be opened, or the configuration is not valid.
    """
    try:
        return make_config(check_fields(holder.value, "--config"))
    except OSError as error:  # ml_collections delays the error of a file that it could not open until the first use
        raise UserError(f"--config: {error.__cause__ or error}") from None


def folder(flag: flags.FlagHolder[str] | flags.FlagHolder[str | None]) -> Path:
    """The path that a flag holds; raises like `user_path`."""
    return user_path(flag.value or "", f"--{flag.name}")


def place(flag: flags.FlagHolder[str] | flags.FlagHolder[str | None]) -> Path:
    """The place that a flag holds, which may be in a bucket; raises like `location`."""
    return location(flag.value or "", f"--{flag.name}")


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    job.end(USER_ERROR_CODE)


def _parse(flag_values: flags.FlagValues, files: bool, argv: list[str]) -> list[str]:
    flags.FLAGS(argv[:1])  # Grain's worker processes need absl's global flags to be parsed
    if {"--help", "-h"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\n{_describe(flag_values)}")
        sys.exit(0)
    _check_config_file(argv)
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        before, found, rest = str(error).partition("Traceback (most recent call last)")
        fail(before + rest.strip().splitlines()[-1] if found else before)
    except Exception as error:
        for cause in (error, error.__cause__, error.__context__):
            if isinstance(cause, KeyError) and _is_flagged(str(cause.args[0]), argv):
                fail(f"--config: no such field: {cause.args[0]}")
        # The config file runs here, so any kind of error may come out of it. ml_collections puts the whole traceback
        # into some messages; their last line says what happened.
        lines = str(error).strip().splitlines()
        fail(f"--config: {type(error).__name__}{': ' if lines else ''}{''.join(lines[-1:])}")
    if rest[1:] and not files:
        fail(f"unexpected argument {rest[1]!r}: settings are given as --flag=value")
    return rest


def _check_config_file(argv: list[str]) -> None:
    """Ends the command if --config names no file, or a huge one: to open a pipe is to wait for its writer."""
    given = [argument.partition("=") for argument in argv]
    given += [(name, "=", value) for name, value in itertools.pairwise(argv)]
    for name, _, value in given:
        with contextlib.suppress(OSError, ValueError):  # a path that cannot be; opening it says so
            if name not in ("--config", "-config") or not value:
                continue
            state = Path(value).stat()
            if not stat.S_ISREG(state.st_mode):
                fail(f"--config={value} is not a file: name a configuration file, such as configs/digits.py")
            if state.st_size > LARGEST_CONFIG:
                fail(f"--config={value} holds {state.st_size} bytes: name a configuration file")


def _describe(flag_values: flags.FlagValues) -> str:
    """The help of all flags, without absl's headings, which name source files."""
    modules = [module for module in flag_values.flags_by_module_dict() if module != "absl.flags"]
    lines = "\n".join(map(flag_values.module_help, modules)).splitlines()
    return "\n".join(line for line in lines if line.startswith(" "))


def _is_flagged(unknown: str, argv: list[str]) -> bool:
    """Whether the message of a missing key begins with a field of an override. If not, the config file raised it."""
    key = unknown.splitlines()[0].strip("'\"")
    return any(key in argument.partition("=")[0].split(".") for argument in argv)


def _last_line(rerun: str, number: signal.Signals) -> str:
    return f"stopped by {number.name}: {progress.reached()}; the same command {rerun}"


def _in_job(command: Callable[[], None]) -> None:
    if job.join(os.environ) and jax.process_index():
        log_warnings_only(f"process {jax.process_index()}: ")
    command()


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        fail(str(error))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            drop_output()
            job.end(CODE)
        message = explain(error)
        if message is not None:
            fail(message)
        _crash()
        raise


def _crash() -> None:
    """In a job of several processes, prints the traceback and ends this one: an orderly end would hold it back."""
    if jax.distributed.is_initialized():
        traceback.print_exc()
        job.end(1)
