"""How every command line starts and ends: flags, log format, one line and exit code 2 for what a user can mend."""

import errno
import functools
import logging as python_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from transdiff_jax.config import Config
from transdiff_jax.errors import UserError

USER_ERROR_CODE = 2
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_QUIET_LIBRARIES = {"orbax", "grain", "jax", "tensorflow_datasets", "etils", "asyncio"}


def run(main: Callable[..., None], flag_values: flags.FlagValues, *, files: bool = False) -> None:
    """Parses the command line into `flag_values`, calls `main` and exits.

    Each command has flags of its own (and not absl's global ones), so that they can be imported side by side.

    Args:
        main: what the command does.
        flag_values: where its flags are.
        files: whether it takes file names beside flags; `main` is then called with their list.
    """
    _set_up_logging()

    def start(argv: list[str]) -> None:
        _guarded(functools.partial(main, argv[1:]) if files else main)

    app.run(start, flags_parser=functools.partial(_parse, flag_values, files))


def read_config(holder: flags.FlagHolder) -> Config:
    """The validated configuration of a `config_flags` flag."""
    try:
        values = holder.value.to_dict()
    except OSError as error:  # ml_collections puts off the error of a file that it could not open to the first use
        raise UserError(f"--config: {error.__cause__ or error}") from None
    return Config.from_dict(values)


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(USER_ERROR_CODE)


def _parse(flag_values: flags.FlagValues, files: bool, argv: list[str]) -> list[str]:
    flags.FLAGS(argv[:1])  # Grain's worker processes ask for absl's global flags to be parsed
    if {"--help", "-h"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__}\n{flag_values.main_module_help()}")
        sys.exit(0)
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        fail(str(error))
    except Exception as error:
        unknown = next(
            (cause for cause in (error, error.__cause__, error.__context__) if type(cause) is KeyError), None
        )
        if unknown:
            fail(f"--config: no such field: {unknown.args[0]}")
        # The config file runs here, so that any kind of error may come out of it; ml_collections puts the whole
        # traceback into some messages, whose last line says what happened.
        fail(f"--config: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
    if rest[1:] and not files:
        fail(f"unexpected argument {rest[1]!r}: settings are given as --flag=value")
    return rest


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        fail(str(error))
    except Exception as error:
        full = _disk_full(error)
        if full is None:
            raise
        fail(f"no space left to write {full.filename or 'a file'} ({full.strerror}): free some and run again")


def _disk_full(error: BaseException | None) -> OSError | None:
    """The first error in the chain of causes that says that a disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


class _OwnMessages(python_logging.Filter):
    """Lets through all but the messages of the talkative libraries, whose errors reach us as exceptions anyway.

    They log through absl's one logger, so that only the place of the call tells them apart.
    """

    def filter(self, record: python_logging.LogRecord) -> bool:
        # clu reports progress as a note to a cluster's work unit; here the console is where it goes.
        record.msg = str(record.msg).removeprefix("Setting work unit notes: ")
        return _QUIET_LIBRARIES.isdisjoint(Path(record.pathname).parts)


def _set_up_logging() -> None:
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(python_logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    handler.addFilter(_OwnMessages())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
