import hashlib
import pickle
import types

import numpy as np
import pytest

from transdiff_jax.storage import bucket_path
from transdiff_jax.storage.bucket_client import errors_of
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.checksums import sha256
from transdiff_jax.storage.files import atomic_path, write_json
from transdiff_jax.storage.json_files import read_json
from transdiff_jax.storage.npz_files import NpzFile
from transdiff_jax.storage.paths import location

requests = pytest.importorskip("requests")
api = pytest.importorskip("google.api_core.exceptions")
storage = pytest.importorskip("google.cloud.storage.exceptions")


def test_names_are_those_of_a_path():
    path = location("gs://bucket/runs/a", "x")
    assert str(path / "b" / "c.npz") == "gs://bucket/runs/a/b/c.npz"
    assert str(path.parent) == "gs://bucket/runs"
    assert str((path / "c.npz").with_suffix(".json")) == "gs://bucket/runs/a/c.json"
    assert (path / "b" / "c").relative_to(path).as_posix() == "b/c"
    assert path.absolute() == path.resolve() == pickle.loads(pickle.dumps(path)) == path
    assert isinstance(path.parent, BucketPath)


def test_files_are_written_read_listed_and_deleted(bucket):
    assert not bucket.exists()
    assert list(bucket.iterdir()) == list(bucket.rglob("*")) == []
    bucket.mkdir(parents=True)
    assert not bucket.is_dir(), "a folder exists as soon as a file lies in it"
    (bucket / "a.txt").write_bytes(b"one\ntwo\n")
    (bucket / "b" / "c").write_bytes(b"")
    assert bucket.is_dir()
    assert not bucket.is_file()
    assert [path.name for path in bucket.iterdir()] == ["a.txt", "b"]
    assert [path.name for path in bucket.glob("*.txt")] == ["a.txt"]
    assert (bucket / "a.txt").stat().st_size == 8
    assert (bucket / "a.txt").read_text() == "one\ntwo\n"
    with (bucket / "a.txt").open("rb") as file:
        file.seek(4)
        assert file.read(3) == b"two"
    assert sha256(bucket / "a.txt") == hashlib.sha256(b"one\ntwo\n").hexdigest()
    (bucket / "a.txt").unlink()
    (bucket / "a.txt").unlink(missing_ok=True)
    assert not (bucket / "a.txt").exists()


@pytest.mark.parametrize(
    "action",
    [
        lambda path: path.open("rb"),
        lambda path: path.read_bytes(),
        lambda path: path.stat(),
        lambda path: path.unlink(),
        lambda path: BucketPath("gs://no-such-bucket/x").write_bytes(b""),
        lambda path: list(BucketPath("gs://no-such-bucket/x").iterdir()),
    ],
)
def test_what_is_missing_is_the_error_of_local_paths(bucket, action):
    with pytest.raises(FileNotFoundError) as caught:
        action(bucket / "nothing")
    assert caught.value.filename.startswith("gs://")


def test_names_that_no_path_has_are_left_out(bucket, monkeypatch):
    class Pages(list):
        prefixes = tuple(f"{bucket.key}/{name}" for name in ("/", "./", "../", "e/"))

    names = ("", "a", "/b", "./c", "../d", "e/", "e//f", "e/g")
    pages = Pages(types.SimpleNamespace(name=f"{bucket.key}/{name}", size=1) for name in names)
    client = types.SimpleNamespace(list_blobs=lambda *_, **__: pages)
    monkeypatch.setattr(bucket_path, "client", lambda: client)
    assert bucket.sizes() == {"a": 1, "e/g": 1}
    assert {path.key for path in bucket.iterdir()} == {f"{bucket.key}/{name}" for name in ("a", "e", "e/g")}


def test_a_file_is_read_in_parts_of_one_generation(bucket, monkeypatch):
    monkeypatch.setattr(bucket_path, "CHUNK", 100)
    content = bytes(range(256)) * 4
    (bucket / "x").write_bytes(content)
    with (bucket / "x").open("rb") as file:
        assert file.read(10) == content[:10]
        file.seek(-20, 2)
        assert file.read() == content[-20:]
        assert file.seek(500) == file.tell() == 500
        assert file.read() == content[500:]
        assert file.read(1) == b""
        file.seek(0)
        (bucket / "x").write_bytes(b"another")
        with pytest.raises(OSError, match="no such file") as caught:
            file.read()
    assert caught.value.filename == str(bucket / "x")


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ReadTimeout("slow"),
        ConnectionResetError(104, "reset"),
        storage.DataCorruption(None, "another checksum"),
        api.ServiceUnavailable("busy"),
    ],
)
def test_errors_of_the_client_become_errors_of_files(error):
    path = location("gs://bucket/x", "x")
    with pytest.raises(OSError, match=r"slow|reset|another checksum|busy") as caught, errors_of(path):
        raise error
    assert (caught.value.filename, bool(caught.value.errno)) == (str(path), True)


def test_errors_of_local_files_keep_their_names():
    with pytest.raises(FileNotFoundError, match="/here"), errors_of(location("gs://bucket/x", "x")):
        raise FileNotFoundError(2, "nothing", "/here")


@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+b", "x"])
def test_a_file_is_never_written_in_part(bucket, mode):
    with pytest.raises(OSError, match="a bucket cannot do this"):
        (bucket / "x").open(mode)
    with pytest.raises(RuntimeError), atomic_path(bucket / "x") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert not bucket.exists()
    with atomic_path(bucket / "x") as temporary:
        temporary.write_bytes(b"whole")
    assert (bucket / "x").read_bytes() == b"whole"


def test_readers_of_files_take_both_kinds_of_places(bucket, tmp_path):
    write_json(bucket / "a.json", {"b": 1})
    assert read_json(bucket / "a.json") == {"b": 1}
    np.savez(tmp_path / "x.npz", a=np.arange(5))
    (bucket / "x.npz").upload(tmp_path / "x.npz")
    with NpzFile(bucket / "x.npz") as file:
        assert file["a"].tolist() == [0, 1, 2, 3, 4]
