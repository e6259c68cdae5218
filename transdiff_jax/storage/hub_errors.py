"""The library of the Hugging Face Hub, and what a user can do about its errors."""

import importlib
from types import ModuleType
from typing import NoReturn

from transdiff_jax.errors import UserError


class MissingFileError(UserError):
    """The repository has no such file."""


class UnreachableError(Exception):
    """The hub does not answer; the message says why."""


def require_hub(name: str) -> ModuleType:
    """Imports huggingface_hub only when a name needs it, because it is an optional extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise UserError(f"{name} needs an extra that is not installed: pip install huggingface_hub") from None


def raise_explained(name: str, repo: str, error: Exception) -> NoReturn:
    """Raises what a user can do about an error of huggingface_hub; an error of another kind as it is.

    Args:
        name: of what was asked for.
        repo: its repository.
        error: what huggingface_hub raised.

    Raises:
        UserError: the hub refuses, or the disk; a `MissingFileError` if there is no such file.
        UnreachableError: the hub does not answer.
    """
    errors = importlib.import_module("huggingface_hub.errors")
    repository = f"the repository {repo}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        raise UserError(f"{name}: {repository} asks for consent: give it on its page, then log in with hf auth login")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        raise UserError(f"{name}: {repository} does not exist or is private: check the name, or run hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        raise UserError(f"{name}: {repository} has no such revision")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        raise MissingFileError(f"{name}: {repository} has no such file")
    if isinstance(error, errors.HFValidationError):
        raise UserError(f"{name}: {_line(error)}")
    if status is not None and status < 500:
        raise UserError(f"{name}: the hub refuses this ({_line(error)})")
    # LocalEntryNotFoundError means that a download found no server; an OSError without a number is one of the library.
    unreachable = (errors.HTTPError, errors.LocalEntryNotFoundError, errors.XetDownloadError)
    if isinstance(error, unreachable) or (isinstance(error, OSError) and error.errno is None):
        raise UnreachableError(_line(error.__cause__ or error))
    if isinstance(error, OSError) and error.filename is not None:
        place = f"{error.filename} could not be written ({error.strerror})"
        raise UserError(f"{name}: {place}: free space or fix permissions") from None
    raise error


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
