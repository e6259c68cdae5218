"""What a command writes to the console: our messages, and of other libraries those that matter to a user."""

import logging as python_logging
import os
import sys
from pathlib import Path

from absl import logging

# The errors of these libraries reach us as exceptions, so their messages would say things twice.
_SILENT_LIBRARIES = {"orbax", "asyncio", "tensorflow_datasets"}
# These libraries log about themselves at the level INFO.
_TALKATIVE_LIBRARIES = {
    *("grain", "jax", "etils", "httpx2", "filelock", "huggingface_hub", "fsspec", "gcsfs", "google", "wandb"),
}


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


def set_up_logging() -> None:
    """Sets the format of log lines and leaves out what says nothing to a user."""
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


def log_warnings_only(prefix: str) -> None:
    """Leaves out messages below warnings and begins each line with `prefix`."""
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().setFormatter(_formatter(prefix))


def _formatter(prefix: str = "") -> python_logging.Formatter:
    return python_logging.Formatter(f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S")
