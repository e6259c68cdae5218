import io
import zipfile

import numpy as np
import pytest

from tests.support.npz import header, write_npz
from transdiff_jax.storage.npz_files import NpzError, NpzFile


def test_arrays_are_those_that_numpy_wrote(tmp_path):
    arrays = {"a": np.arange(24.0).reshape(2, 3, 4), "b": np.asfortranarray(np.eye(3)), "c": np.array("text")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        with NpzFile(tmp_path / "a.npz") as file:
            assert file.names == list(arrays)
            assert "a" in file
            assert "d" not in file
            for name, array in arrays.items():
                np.testing.assert_array_equal(file[name], array)
            assert file.header("b") == ((3, 3), np.float64, True)
            with pytest.raises(KeyError):
                file["d"]


def test_parts_of_an_array(tmp_path):
    array = np.arange(7 * 3, dtype=np.uint8).reshape(7, 3)
    np.savez_compressed(tmp_path / "a.npz", a=array)
    with NpzFile(tmp_path / "a.npz") as file:
        parts = list(file.batches("a", 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), array)


DATA = bytes(16)
HOSTILE = {
    "931 GiB": (header((10**12,), "|u1") + DATA, r"takes 1000000000000 bytes, not 16"),
    "more than 64 bits": (header((2**40, 2**40), "<f8") + DATA, r"not 16"),
    "wraps to what is there": (header((2**32 + 1, 2**32), "<f4") + DATA, r"not 16"),
    "negative": (header((-4,), "<f4") + DATA, r"has a negative size"),
    "twice negative": (header((-2, -2), "<f4") + DATA, r"has a negative size"),
    "letters": (header(("a", 2), "<f4") + DATA, r"shape is not valid"),
    "a list": (header([4], "<f4") + DATA, r"shape is not valid"),
    "objects": (header((2,), "|O") + DATA, r"holds Python objects"),
    "no type": (header((4,), "<x4") + DATA, r"descr is not a valid dtype descriptor"),
    "huge elements": (header((1,), [("a", "<f4", (2**28,))]) + DATA, r"not 16"),
    "less than there is": (header((2,), "<f4") + DATA, r"takes 8 bytes, not 16"),
    "nested": (header("(" * 4000, "<f4") + DATA, r"."),
    "long": (header("a" * 20_000, "<f4") + DATA, r"Header info length"),
    "no header": (b"hello", r"."),
    "empty": (b"", r"."),
    "version": (b"\x93NUMPY\x07\x00" + DATA, r"format .* is not known"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_declared_is_checked_before_memory_is_taken(tmp_path, name):
    content, message = HOSTILE[name]
    write_npz(tmp_path / "a.npz", x=content)
    with NpzFile(tmp_path / "a.npz") as file:
        for read in (file.__getitem__, file.header, lambda name: list(file.batches(name, 2))):
            with pytest.raises(NpzError, match=message) as caught:
                read("x")
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) <= 200


def test_a_directory_that_lies_about_sizes(tmp_path):
    write_npz(tmp_path / "a.npz", x=header((10**9,), "|u1") + DATA)
    size = len(header((10**9,), "|u1") + DATA)
    content = (tmp_path / "a.npz").read_bytes()
    directory = content.index(b"PK\x01\x02")
    for field in (20, 24):  # the compressed size and the size
        at = directory + field
        assert int.from_bytes(content[at : at + 4], "little") == size
        content = content[:at] + (10**9 + size - 16).to_bytes(4, "little") + content[at + 4 :]
    (tmp_path / "a.npz").write_bytes(content)
    with NpzFile(tmp_path / "a.npz") as file, pytest.raises(NpzError, match=r"declares 10000000.. bytes, but the f"):
        file["x"]


def test_compressions_without_a_bound_are_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", content.getvalue())
    with NpzFile(tmp_path / "a.npz") as file, pytest.raises(NpzError, match="compression 14"):
        file["x"]


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "text").write_bytes(b"hello")
    np.save(tmp_path / "a.npy", np.zeros(3))
    for name in ("text", "a.npy", "."):
        with pytest.raises(NpzError):
            NpzFile(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        NpzFile(tmp_path / "absent")
