"""Places in buckets of Google Cloud Storage, used like paths, for reading and for writing whole files.

A file there appears whole or not at all, under its final name, and an empty folder does not exist.
"""

import errno
import fnmatch
import hashlib
import io
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import IO, Any, NoReturn

from transdiff_jax.errors import UserError
from transdiff_jax.storage.bucket_client import client, errors_of, prepare
from transdiff_jax.storage.bucket_parts import Parts

SCHEME = "gs"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
CHUNK = 2**24  # bytes of one request for a part of a file
_COLLAPSED, _START = f"{SCHEME}:/", f"{SCHEME}://"  # pathlib joins the two slashes


class BucketPath(PosixPath):
    """A file or folder in a bucket. `location` in paths.py makes it of what users write.

    Errors are those of local paths, and OSError for a server that cannot be reached.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(_COLLAPSED, _START, 1)

    def __fspath__(self) -> str:
        return str(self)

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.parts[1]

    @property
    def key(self) -> str:
        """The name of the file in the bucket."""
        return "/".join(self.parts[2:])

    def blob(self, **kwargs: Any) -> Any:
        """The client's object for this file; asks the server nothing. `kwargs` are those of its `Blob`."""
        return client().bucket(self.bucket).blob(self.key, **kwargs)

    def absolute(self) -> "BucketPath":
        """This path, which is absolute."""
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """This path: a bucket has no links."""
        return self

    def is_symlink(self) -> bool:
        """False: a bucket has no links."""
        return False

    def is_file(self, **_: bool) -> bool:
        """Whether there is such a file. One request."""
        with errors_of(self):
            return bool(self.key) and self.blob().exists()

    def is_dir(self, **_: bool) -> bool:
        """Whether any file lies below. One request."""
        with errors_of(self):
            return any(True for _ in client().list_blobs(self.bucket, prefix=self.prefix, max_results=1))

    def exists(self, **_: bool) -> bool:
        """Whether it is a file or a folder. One or two requests."""
        return self.is_file() or self.is_dir()

    @property
    def prefix(self) -> str:
        """How the names of all files below begin."""
        return f"{self.key}/" if self.key else ""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and times of a file. One request."""
        found = self.blob()
        with errors_of(self):
            found.reload()
        times = [found.updated.timestamp()] * 3
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, found.size, *times))

    def open(  # pyrefly: ignore[bad-override]  # of the overloads of Path.open only reading is left
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Opens a file for reading: bytes with a request for each part that is read, text after reading all of it.

        Raises:
            OSError: there is no such file, or the mode is one of writing.
        """
        if mode == "rb":
            with errors_of(self):
                found = self.blob()
                found.reload()
            # With the generation, all parts are of one file, whoever replaces it meanwhile.
            return io.BufferedReader(Parts(self, self.blob(generation=found.generation), found.size), CHUNK)
        if mode not in ("r", "rt"):
            self._refuse()
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """The whole file. One request."""
        with errors_of(self):
            return self.blob().download_as_bytes()

    def sha256(self) -> str:
        """The digest of the file, in hexadecimal. One request; the file passes through memory in parts."""
        digest = hashlib.sha256()
        with errors_of(self):
            self.blob().download_to_file(_Hashed(digest))
        return digest.hexdigest()

    def write_bytes(self, data: Any) -> int:
        """Writes a whole file, atomically."""
        with errors_of(self):
            self.blob().upload_from_string(bytes(data))
        return len(data)

    def upload(self, source: Path) -> None:
        """Writes a whole file, atomically, from a local one."""
        with errors_of(self):
            self.blob().upload_from_filename(str(source))

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes a file. One request."""
        try:
            with errors_of(self):
                self.blob().delete()
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Generator["BucketPath"]:
        """What lies in this folder, nothing if there is no such folder. One request for each 1,000 names."""
        with errors_of(self):
            pages = client().list_blobs(self.bucket, prefix=self.prefix, delimiter="/")
            keys = [blob.name for blob in pages] + [prefix.removesuffix("/") for prefix in pages.prefixes]
        names = (key.removeprefix(self.prefix) for key in sorted(keys))
        yield from (self / name for name in names if _is_path(name))

    def glob(self, pattern: str, **_: bool) -> Generator["BucketPath"]:
        """What in this folder has a name of this pattern, which holds no slash."""
        if "/" in pattern or "**" in pattern:
            self._refuse()
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str, **_: bool) -> Generator["BucketPath"]:
        """All files below whose names have this pattern. One request for each 1,000 of all."""
        return (self / name for name in self.sizes() if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern))

    def sizes(self) -> dict[str, int]:
        """The size of each file below, by its name from here, sorted. One request for each 1,000 files.

        Names that no path has, such as one with two slashes, are left out; so are those of folders.
        """
        with errors_of(self):
            blobs = client().list_blobs(self.bucket, prefix=self.prefix)
            found = {blob.name.removeprefix(self.prefix): blob.size for blob in blobs}
        return {name: found[name] for name in sorted(found) if _is_path(name)}

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder exists as soon as a file lies in it."""

    def copy_to(self, target: "BucketPath") -> None:
        """Copies a file within its bucket, without reading it."""
        with errors_of(self):
            bucket = client().bucket(self.bucket)
            bucket.copy_blob(self.blob(), bucket, target.key)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOTSUP, "a bucket cannot do this", str(self))

    rename = replace = rmdir = touch = write_text = chmod = symlink_to = hardlink_to = readlink = walk = _refuse


def _is_path(name: str) -> bool:
    """Whether a path below a folder can have this name."""
    return not {"", ".", ".."} & set(name.split("/"))


class _Hashed:
    """What a download writes to, so that its bytes are hashed and not kept."""

    def __init__(self, digest: "hashlib._Hash") -> None:
        self.write = digest.update


def bucket_path(text: str, name: str) -> BucketPath:
    """The path of an address that begins with gs://.

    Args:
        text: the address.
        name: what holds it, for errors.

    Raises:
        UserError: it is no address of a place in a bucket, or a package is missing.
    """
    path = BucketPath(f"{SCHEME}:{text.strip().partition(':')[2]}")
    if len(path.parts) < 2 or not _BUCKET.fullmatch(path.bucket) or ".." in path.parts:
        raise UserError(f"{name}={text} must be gs://BUCKET/FOLDER, with the name of a bucket and without ..")
    prepare(f"{name}={text}")
    return path
