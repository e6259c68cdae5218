from pathlib import Path

import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.storage.paths import user_path


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
