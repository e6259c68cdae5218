"""Starts and ends every command line: flags, log format, and one line with exit code 2 for what a user can fix."""

import errno
import functools
import logging as python_logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from transdiff_jax.config import Config, make_config
from transdiff_jax.config.build import check_fields
from transdiff_jax.errors import UserError
from transdiff_jax.parallel import job, libtpu
from transdiff_jax.storage.paths import user_path

USER_ERROR_CODE = 2
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The errors of these libraries reach us as exceptions, so their messages would say things twice.
_SILENT_LIBRARIES = {"orbax", "asyncio", "tensorflow_datasets"}
# These libraries log about themselves at the level INFO.
_TALKATIVE_LIBRARIES = {"grain", "jax", "etils"}
# When another process of the job ends, a collective or the coordination service raises an error with one of these.
_LOST = ("Gloo", "NCCL", "coordination service", "CoordinationService", "barrier")


def run(
    main: Callable[..., None],
    flag_values: flags.FlagValues,
    *,
    files: bool = False,
    several: bool = False,
    stops_together: bool = False,
) -> None:
    """Parses the command line into `flag_values`, calls `main` and exits.

    Each command has its own flags, not absl's global ones, so that commands can be imported side by side.

    Args:
        main: the work of the command.
        flag_values: its flags.
        files: whether it takes file names beside flags; `main` is then called with their list.
        several: whether processes of one job may share the work (`transdiff_jax.parallel.job`).
        stops_together: whether these processes agree on when to stop after SIGTERM.
    """
    _set_up_logging()
    libtpu.set_up(os.environ)

    def start(argv: list[str]) -> None:
        command = functools.partial(main, argv[1:]) if files else main
        _guarded(functools.partial(_in_job, command, stops_together) if several else command)

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


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    job.end(USER_ERROR_CODE)


def _parse(flag_values: flags.FlagValues, files: bool, argv: list[str]) -> list[str]:
    flags.FLAGS(argv[:1])  # Grain's worker processes need absl's global flags to be parsed
    if {"--help", "-h"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\n{_describe(flag_values)}")
        sys.exit(0)
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        fail(str(error))
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


def _describe(flag_values: flags.FlagValues) -> str:
    """The help of all flags, without absl's headings, which name source files."""
    modules = [module for module in flag_values.flags_by_module_dict() if module != "absl.flags"]
    lines = "\n".join(map(flag_values.module_help, modules)).splitlines()
    return "\n".join(line for line in lines if line.startswith(" "))


def _is_flagged(unknown: str, argv: list[str]) -> bool:
    """Whether the message of a missing key begins with a field of an override. If not, the config file raised it."""
    key = unknown.splitlines()[0].strip("'\"")
    return any(key in argument.partition("=")[0].split(".") for argument in argv)


def _in_job(command: Callable[[], None], stops_together: bool) -> None:
    if job.join(os.environ, stops_together=stops_together) and jax.process_index():
        _log_warnings_only(f"process {jax.process_index()}: ")
    command()


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        fail(str(error))
    except Exception as error:
        message = _explain(error)
        if message is not None:
            fail(message)
        _crash()
        raise
    except KeyboardInterrupt:
        _crash()
        raise


def _crash() -> None:
    """In a job of several processes, prints the traceback and ends this one: an orderly end would hold it back."""
    if jax.distributed.is_initialized():
        traceback.print_exc()
        job.end(1)


def _explain(error: BaseException | None) -> str | None:
    """Says what a user can do about an error of the machine; None if a user can do nothing."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return f"no space left to write {error.filename or 'a file'} ({error.strerror}): free some and run again"
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            return (
                "the device's memory is too small: lower the batch size, raise config.train.accumulation, set "
                f"config.model.remat=full or shard over more devices ({str(error).splitlines()[0]})"
            )
        if isinstance(error, jax.errors.JaxRuntimeError) and any(name in str(error) for name in _LOST):
            return f"another process of the job ended; its output says why ({str(error).splitlines()[0][:200]})"
        error = error.__cause__ or error.__context__
    return None


class _OwnMessages(python_logging.Filter):
    """Passes our messages, and those of other libraries that matter to a user.

    All log through absl's one logger, so only the place of the call tells them apart.
    """

    def filter(self, record: python_logging.LogRecord) -> bool:
        library = _library(Path(record.pathname))
        if library in _SILENT_LIBRARIES:
            return False
        return library not in _TALKATIVE_LIBRARIES or record.levelno >= python_logging.WARNING


def _library(path: Path) -> str:
    """The installed package that a source file belongs to; for other files, the name of their folder."""
    for index, part in enumerate(path.parts):
        if part in ("site-packages", "dist-packages"):
            return path.parts[index + 1]
    return path.parent.name


def _set_up_logging() -> None:
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_formatter())
    handler.addFilter(_OwnMessages())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    sys.unraisablehook = _report


def _report(unraisable: "sys.UnraisableHookArgs") -> None:
    """Reports an error that nobody can catch, unless it comes from TensorStore's threads after a failed save.

    The writes under way then report to an event loop that has ended: hundreds of tracebacks around our one line.
    """
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def _log_warnings_only(prefix: str) -> None:
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().setFormatter(_formatter(prefix))


def _formatter(prefix: str = "") -> python_logging.Formatter:
    return python_logging.Formatter(f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S")
