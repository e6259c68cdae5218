from pathlib import Path

import pytest

from tests.support.paths import ROOT
from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import scheme_of, user_path


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
