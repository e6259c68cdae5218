"""Files of the Hugging Face Hub: which commit a name means, and a local copy that was compared with its digest.

huggingface_hub downloads, and keeps what it has downloaded. It compares no digests, and without a network it takes an
older file for a branch and says nothing. So a name is first pinned to a commit, and each file is compared here: files
of Git LFS with their SHA-256, small ones with the SHA-1 of Git.
"""

import hashlib
import importlib
import re
import urllib.parse
from pathlib import Path
from typing import NamedTuple

from absl import logging

from transdiff_jax.errors import UserError
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.storage.files import write_bytes
from transdiff_jax.storage.hub_errors import UnreachableError, raise_explained, require_hub

SCHEME = "hf"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.%-]+))?(?:/(.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK = 2**20


class HubName(NamedTuple):
    """A repository of the hub, or a file in it."""

    repo: str  # OWNER/NAME
    revision: str = "main"  # a branch, a tag or a commit
    path: str = ""  # of the file; empty: the repository

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        """The name as people write it."""
        revision = "" if self.revision == "main" else f"@{urllib.parse.quote(self.revision, safe='')}"
        return f"{SCHEME}://{self.repo}{revision}" + (f"/{self.path}" if self.path else "")


def parse_name(text: str) -> HubName:
    """The parts of hf://OWNER/REPO[@REVISION][/PATH]. A slash in a revision is written %2F.

    Raises:
        UserError: it has another form.
    """
    match = _NAME.fullmatch(text)
    if match is not None:
        name = HubName(match[1], urllib.parse.unquote(match[2] or "main"), (match[3] or "").rstrip("/"))
        parts = f"{name.revision}/{name.path}".rstrip("/").split("/")
        if not {"", ".", ".."} & set(parts) and "".join(parts).isprintable():
            return name
    raise UserError(f"{text} is no name of the hub: write hf://OWNER/REPO[@REVISION][/PATH]")


def pin(name: HubName) -> HubName:
    """The same file with the commit that its revision means now.

    If the hub cannot be reached, it is the commit that the revision meant last, with a warning.

    Raises:
        UserError: the repository or the file does not exist, or the hub cannot be reached and never was.
    """
    if name.pinned:
        return name
    note = _note(name)
    try:
        commit, _ = _metadata(name)
        _write_note(note, commit)
    except UnreachableError as error:
        commit = note.read_text() if note.is_file() else ""
        if not _COMMIT.fullmatch(commit):
            raise _not_here(name, error) from None
        logging.warning("%s: the hub cannot be reached (%s): taking commit %s, seen last", name, error, commit)
    return name._replace(revision=commit)


def _note(name: HubName) -> Path:
    """Where huggingface_hub notes which commit a revision meant last."""
    require_hub(str(name))
    cache = importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE
    return Path(cache) / f"models--{name.repo.replace('/', '--')}" / "refs" / name.revision


def _write_note(note: Path, commit: str) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, commit.encode())
    except OSError as error:  # a cache of others
        logging.warning("%s cannot be written (%s): without a network this commit will not be known", note, error)


def fetch(name: HubName) -> Path:
    """A local copy of a file, downloaded if there is none yet, and compared with its digest.

    Raises:
        UserError: as in `pin`, or the copy does not match its digest; it is removed then.
    """
    name = pin(name)
    copy = _copy(name)
    if copy is None or not copy.digest:  # without links, the name of a copy does not tell its digest
        logging.info("downloading %s", name)
        try:
            copy = _download(name)
        except UnreachableError as error:
            raise _not_here(name, error) from None
    _check(name, copy)
    return copy.path


class _Copy(NamedTuple):
    """A file in the cache of huggingface_hub."""

    path: Path
    commit: str
    digest: str  # of Git LFS or of Git; empty if it is not known


def _metadata(name: HubName) -> tuple[str, str]:
    """The commit of a revision, and the digest of the file there."""
    hub = require_hub(str(name))
    try:
        found = hub.get_hf_file_metadata(hub.hf_hub_url(name.repo, name.path, revision=name.revision))
    except Exception as error:
        raise_explained(str(name), name.repo, error)
    if found.commit_hash is None or not _COMMIT.fullmatch(found.commit_hash):
        raise UserError(f"{name}: the server names no commit, so it is no hub: check the variable HF_ENDPOINT")
    return found.commit_hash, found.etag or ""


def _download(name: HubName) -> _Copy:
    commit, digest = _metadata(name)
    try:
        path = require_hub(str(name)).hf_hub_download(name.repo, name.path, revision=commit)
    except Exception as error:
        raise_explained(str(name), name.repo, error)
    return _Copy(Path(path), commit, digest)


def _copy(name: HubName) -> _Copy | None:
    """The copy in the cache. Its link leads to a file that is named by the digest."""
    found = require_hub(str(name)).try_to_load_from_cache(name.repo, name.path, revision=name.revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    commit = path.parents[name.path.count("/")].name
    return _Copy(path, commit, path.readlink().name if path.is_symlink() else "")


def _check(name: HubName, copy: _Copy) -> None:
    if re.fullmatch(r"[0-9a-f]{64}", copy.digest):
        found = sha256(copy.path)
    elif _COMMIT.fullmatch(copy.digest):
        found = _git_sha1(copy.path)
    else:
        raise UserError(f"{name}: no digest is known of this file, so that damage would not be found: download it anew")
    if found != copy.digest:
        blob = copy.path.resolve()
        copy.path.unlink()
        blob.unlink(missing_ok=True)
        raise UserError(
            f"{name} has the digest {found}, but the hub names {copy.digest}: it was damaged on its way or on the "
            "disk; the copy is removed, run the same again to download it anew"
        )


def _git_sha1(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _not_here(name: HubName, error: Exception) -> UserError:
    return UserError(
        f"{name}: the hub cannot be reached ({error}), and the file was not downloaded before: connect to the network, "
        "or download it elsewhere and name the file"
    )
