"""The client of Google Cloud Storage: loaded on first use, with its errors turned into those of local files."""

import contextlib
import errno
import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transdiff_jax.errors import UserError

_PACKAGES = ("gcsfs", "google.cloud.storage")


@functools.cache
def prepare(place: str) -> None:
    """Sets up the packages that Orbax reads and writes buckets with; a value that is set already is kept.

    Raises:
        UserError: a package is missing; `place` says what needs it.
    """
    missing = [package for package in _PACKAGES if not _installed(package)]
    if missing:
        raise UserError(f"{place} needs {missing[0]}, which is not installed: pip install 'transdiff_jax[gcs]'")
    os.environ.setdefault("EPATH_USE_TF", "false")  # one client, whether or not TensorFlow is installed
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it asks another service about the bucket
    from fsspec.config import conf  # fsspec comes with orbax; it is loaded only where a bucket is used

    conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)  # others change the bucket, too


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package's parent
        return False


@functools.cache
def client() -> Any:
    """The client of this process. It repeats requests that fail for a moment."""
    return importlib.import_module("google.cloud.storage").Client()


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turns the client's errors into those of local files.

    Raises:
        OSError: the block raised an error of the client; it names the file.
        UserError: there are no credentials.
    """
    exceptions = importlib.import_module("google.api_core.exceptions")  # of an extra
    login = importlib.import_module("google.auth.exceptions")
    storage = importlib.import_module("google.cloud.storage.exceptions")
    try:
        yield
    except exceptions.NotFound:
        raise FileNotFoundError(errno.ENOENT, "no such file or bucket", str(path)) from None
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise PermissionError(errno.EACCES, _reason(error), str(path)) from None
    except exceptions.PreconditionFailed:
        raise FileExistsError(errno.EEXIST, "another process has changed it", str(path)) from None
    except login.DefaultCredentialsError as error:
        raise UserError(
            f"{path} needs credentials: run `gcloud auth application-default login` ({_reason(error)})"
        ) from None
    except (exceptions.GoogleAPIError, login.GoogleAuthError, storage.DataCorruption, storage.InvalidResponse) as error:
        raise OSError(errno.EIO, _reason(error), str(path)) from None
    except OSError as error:
        if error.filename is not None:  # of a local file, or translated already
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or _reason(error), str(path)) from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]
