import shutil

import numpy as np
import pytest
from absl.testing import flagsaver

from tests.support.paths import GOLDEN
from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.cli import convert
from transdiff_jax.errors import UserError

torch = pytest.importorskip("torch")

CHECKPOINT = GOLDEN / "one_step_256_a.pth"


def run(*arguments):
    saved = flagsaver.save_flag_values(convert.FLAGS)
    try:
        convert.FLAGS(["convert", *(str(argument) for argument in arguments)])
        convert.main()
    finally:
        flagsaver.restore_flag_values(saved, convert.FLAGS)


@pytest.mark.parametrize("flag", ["--to-torch", "--to_torch"])
def test_there_and_back_lists_every_tensor(tmp_path, capsys, flag):
    run(f"--checkpoint={CHECKPOINT}", "--kind=transdiff", f"--out={tmp_path / 'run'}", "--heads=2")
    lines = capsys.readouterr().out.splitlines()
    before = torch.load(CHECKPOINT, weights_only=False)["model"]
    assert {line.split()[1] for line in lines} == {*before}
    assert [line.split()[1] for line in lines if line.startswith("unused")] == ["z_proj.weight", "z_proj.bias"]
    run(f"--checkpoint={tmp_path / 'run'}", "--kind=transdiff", f"--out={tmp_path / 'back.pth'}", flag)
    after = torch.load(tmp_path / "back.pth", weights_only=False)["model"]
    np.testing.assert_array_equal(after["z_proj.weight"], before["z_proj.weight"])


def test_inception_has_no_way_back(tmp_path):
    with pytest.raises(UserError, match="--to-torch does not go with --kind=inception"):
        run(f"--checkpoint={tmp_path}", "--kind=inception", f"--out={tmp_path / 'a.pth'}", "--to-torch")


def test_inception_is_looked_for_in_a_published_file(tmp_path):
    with pytest.raises(UserError, match=r"one_step_256_a\.pth: 472 tensor\(s\) missing"):
        run(f"--checkpoint={CHECKPOINT}", "--kind=inception", f"--out={tmp_path / 'out'}")


@pytest.mark.parametrize("flag", ["--heads=4", "--tokenizer=a"])
@pytest.mark.parametrize("kind", [["--kind=inception"], ["--kind=kl16"], ["--kind=transdiff", "--to-torch"]])
def test_flags_that_a_kind_does_not_know(tmp_path, kind, flag):
    line = f"^{flag.split('=')[0]} goes only with --kind=transdiff, without --to-torch; leave it out$"
    with pytest.raises(UserError, match=line):
        run(f"--checkpoint={CHECKPOINT}", f"--out={tmp_path / 'out'}", *kind, flag)


@pytest.mark.parametrize("name", ["checkpoint", "out", "tokenizer"])
def test_paths_that_are_empty(name):
    flags = {"checkpoint": CHECKPOINT, "out": "a", "kind": "transdiff", name: ""}
    with pytest.raises(UserError, match=f"^--{name}= is empty: give it a path"):
        run(*(f"--{flag}={value}" for flag, value in flags.items()))


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(CHECKPOINT, tmp_path / "a.pth")
    run("--checkpoint=~/a.pth", "--kind=transdiff", "--out=~/run", "--heads=2", "--tokenizer=~/kl16")
    assert latest_record(tmp_path / "run").config.tokenizer.weights == str(tmp_path / "kl16")


@pytest.mark.parametrize("flags", [["--kind=transdiff"], ["--kind=kl16"], ["--kind=transdiff", "--to-torch"]])
def test_models_of_the_hub(tmp_path, monkeypatch, flags):
    got = []
    monkeypatch.setattr(convert, "fetch", lambda name: f"file {name}")
    monkeypatch.setattr(convert, "run_folder", lambda flag: f"run {flag.value}")

    def converted(source, out, **_):
        got.append(str(source))
        raise UserError("enough")

    for name in ("import_transdiff", "import_kl16", "export_transdiff"):
        monkeypatch.setattr(convert.conversion, name, converted)
    with pytest.raises(UserError, match="enough"):
        run("--checkpoint=hf://a/b/c.pth", f"--out={tmp_path / 'out'}", *flags)
    assert got == ["run hf://a/b/c.pth" if "--to-torch" in flags else "file hf://a/b/c.pth"]
