import json

import pytest

from tests.support.paths import GOLDEN
from transdiff_jax.cli import verify
from transdiff_jax.errors import UserError

KL16 = GOLDEN / "kl16_a.npz"


def report(file, ok):
    return {"file": str(file), "max_relative_error": 0.0, "checks": {}, "ok": ok}


def test_prints_one_json_line_a_file(capsys):
    verify.main([str(KL16)])
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert record["file"] == str(KL16)
    assert record["ok"]


def test_one_bad_file_of_several_makes_the_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr(verify, "verify", lambda file: report(file, file != "b"))
    with pytest.raises(SystemExit) as exit_:
        verify.main(["a", "b", "c"])
    assert exit_.value.code == 1
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "c"]


def test_without_files():
    with pytest.raises(UserError, match="name at least one golden file"):
        verify.main([])


def test_an_empty_name_is_one_line():
    with pytest.raises(UserError, match=r"^FILE= is empty"):
        verify.main([""])
