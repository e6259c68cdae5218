import errno
import fcntl
import json

import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.storage.files import atomic_path, lock, locked, remove_temporaries, write_errors, write_json


def test_file_appears_under_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_temporary_name(tmp_path):
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


@pytest.mark.parametrize("before", [None, "old"])
def test_error_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "a.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(RuntimeError, match="disk full"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if before is None else [before])


def test_write_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}
    with pytest.raises(TypeError):
        write_json(path, {"b": object()})
    assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_is_removed_and_nothing_else(tmp_path):
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.write_text("half")
        (tmp_path / temporary.name.replace("a.png", "b.png")).write_text("half")
        temporary.write_text("whole")
    (tmp_path / ".hidden").write_text("")
    remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", ".hidden"}


def test_write_errors_are_one_line(tmp_path):
    path = tmp_path / "no folder" / "a.json"
    message = r"a\.json could not be written \(No such file or directory\): "
    with pytest.raises(UserError, match=message) as caught, write_errors(path):
        write_json(path, {})
    assert "\n" not in str(caught.value)
    with pytest.raises(KeyError), write_errors(path):
        raise KeyError


def test_locks(tmp_path, monkeypatch):
    with lock(tmp_path / "lock"), pytest.raises(UserError, match=f"{tmp_path} is in use by another process"):
        lock(tmp_path / "lock")
    with locked(tmp_path / "lock"):
        pass

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    message = rf"{tmp_path} is on a file system without locks \(No locks available\)"
    with pytest.raises(UserError, match=message):
        lock(tmp_path / "lock")
    with pytest.raises(UserError, match=message), locked(tmp_path / "lock"):
        pass
