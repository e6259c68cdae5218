from pathlib import Path

import pytest

from tests.support.paths import ROOT
from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import files_below, location, missing_files, move_tree, scheme_of, user_path


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_path("~/runs", "--workdir") == Path("/home/somebody/runs")
    assert user_path(Path("~/runs"), "--workdir") == Path("/home/somebody/runs")
    assert user_path("runs/a b", "--workdir") == Path("runs/a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "--out= is empty: give it a path"),
        ("  ", "--out= is empty: give it a path"),
        ("a\0b", r"--out='a\\x00b' holds a character that no path can have"),
        ("~nobody_of_this_name/x", "--out=~nobody_of_this_name/x: Could not determine home directory"),
    ],
)
def test_what_is_no_path_is_one_line_that_names_its_holder(value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        user_path(value, "--out")


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("gs://bucket/run", "gs"),
        ("S3://bucket", "s3"),
        ("hf://owner/name@main/file", "hf"),
        (Path("gs://bucket/run"), "gs"),  # which pathlib writes as gs:/bucket/run
        ("runs/a:b", ""),
        ("/runs/gs", ""),
        ("~/gs:", ""),
    ],
)
def test_the_scheme_of_an_address(value, scheme):
    assert scheme_of(value) == scheme


@pytest.mark.parametrize("value", ["gs://bucket/run", "s3://b", "file:///tmp/x", Path("gs://bucket/run"), "a/gs://b"])
def test_an_address_is_never_a_local_path(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--workdir=.* is no local path, and only local paths work here: copy it"):
        user_path(value, "--workdir")
    with pytest.raises(UserError, match=r"is no local path, and prepare it elsewhere$"):
        user_path(value, "--workdir", "prepare it elsewhere")
    assert not list(tmp_path.iterdir())


def test_nothing_else_reads_a_path_of_a_user():
    readers = [p for p in (ROOT / "transdiff_jax").rglob("*.py") if "expanduser" in p.read_text()]
    assert [path.name for path in readers] == ["paths.py"]


def test_a_location_is_local_or_in_a_bucket():
    assert location("~/runs", "--workdir") == Path("~/runs").expanduser()
    for value in ("gs://bucket/runs/a", Path("gs://bucket/runs/a"), " gs://bucket/runs/a/", "GS://bucket/runs/a"):
        found = location(value, "--workdir")
        assert (str(found), found.bucket, found.key) == ("gs://bucket/runs/a", "bucket", "runs/a")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("s3://bucket/run", "--workdir=s3://bucket/run is no local path, and gs://BUCKET/FOLDER is the only address"),
        ("gs://", "--workdir=gs:// must be gs://BUCKET/FOLDER"),
        ("gs://UPPER/run", "--workdir=gs://UPPER/run must be gs://BUCKET/FOLDER"),
        ("gs://bucket/../other", "--workdir=gs://bucket/../other must be gs://BUCKET/FOLDER"),
        ("", "--workdir= is empty"),
    ],
)
def test_what_is_no_location_is_one_line(value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        location(value, "--workdir")


def test_without_the_extra_a_bucket_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--workdir=gs://bucket/new needs gcsfs, .* 'transdiff_jax\[gcs\]'"):
        location("gs://bucket/new", "--workdir")


@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_files_are_listed_and_moved_alike(kind, tmp_path, request):
    folder = tmp_path if kind == "local" else request.getfixturevalue("bucket")
    for name, data in {"a/x": b"12", "a/b/y": b"345", "c": b""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert files_below(folder) == {"a/b/y": 3, "a/x": 2, "c": 0}
    assert missing_files(folder, ["a/x", "a/z", "c", "a"]) == ["a/z", "a"]
    move_tree(folder / "a", folder / "d")
    assert list(files_below(folder)) == ["c", "d/b/y", "d/x"]
    assert files_below(folder / "nothing") == {}
