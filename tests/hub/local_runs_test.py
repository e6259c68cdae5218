from pathlib import Path

import pytest

import transdiff_jax as td
from tests.support.hub_server import served
from tests.support.paths import GOLDEN
from transdiff_jax.checkpoints.weights import latest_record
from transdiff_jax.errors import UserError
from transdiff_jax.hub import making
from transdiff_jax.hub.local_runs import is_remote, load, local_run
from transdiff_jax.hub.published import PUBLISHED, REPO
from transdiff_jax.storage import hub_files

pytest.importorskip("huggingface_hub")
pytest.importorskip("torch")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with served(monkeypatch, tmp_path / "cache") as hub:
        yield hub


RELEASE = "someone/release"
FILE = f"hf://{RELEASE}/small/checkpoint-last.pth"


def test_a_file_of_the_release_becomes_a_run_once(hub, tmp_path, caplog):
    commit = hub.add_commit(RELEASE, {"small/checkpoint-last.pth": (GOLDEN / "one_step_256_a.pth").read_bytes()})
    run = local_run(FILE, "workdir")
    folder = tmp_path / "home" / ".cache" / "transdiff_jax" / "models" / "someone--release" / commit
    assert run == folder / "small--checkpoint-last.pth"
    assert "has no vae/checkpoint-last.pth" in caplog.text
    assert latest_record(run).config.model.width == 32
    hub.requests.clear()
    assert local_run(FILE, "workdir") == run
    assert [method for method, path in hub.requests if "/resolve/" in path] == ["HEAD"]
    hub.requests.clear()
    assert local_run(FILE.replace("release/", f"release@{commit}/"), "workdir") == run
    assert hub.requests == []


def test_the_tokenizer_comes_with_it(hub, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(making, "import_kl16", lambda path, out: (out.mkdir(), made.append(path.read_bytes())))
    monkeypatch.setattr(making, "import_transdiff", lambda path, out, tokenizer: (out.mkdir(), made.append(tokenizer)))
    hub.add_commit(RELEASE, {"small/checkpoint-last.pth": b"a", "vae/checkpoint-last.pth": b"vae"})
    run = local_run(FILE, "workdir")
    assert made == [b"vae", str(run.with_name("vae--checkpoint-last.pth"))]


def test_names_of_published_models(hub, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    assert all(is_remote(name) for name in PUBLISHED)
    file = PUBLISHED["transdiff-l-mrar"].source.path
    hub.add_commit(REPO, {file: (GOLDEN / "one_step_256_a.pth").read_bytes()})
    assert local_run("transdiff-l-mrar", "workdir").name == "transdiff_l_mrar--checkpoint-last.pth"
    assert "is not of the size l and the kind mrar_256" in caplog.text
    (tmp_path / "transdiff-l-mrar").mkdir()
    assert local_run("transdiff-l-mrar", "workdir") == Path("transdiff-l-mrar")


def test_a_run_that_others_made_needs_no_permission_to_write(hub, monkeypatch, caplog):
    hub.add_commit(RELEASE, {"small/checkpoint-last.pth": (GOLDEN / "one_step_256_a.pth").read_bytes()})
    run = local_run(FILE, "workdir")

    def refuse(path, *_):
        raise PermissionError(13, "no permission", str(path))

    monkeypatch.setattr(making, "locked", refuse)
    monkeypatch.setattr(hub_files, "write_bytes", refuse)
    assert local_run(FILE, "workdir") == run
    assert "without a network this commit will not be known" in caplog.text
    hub.add_commit("someone/other", {"b.pth": b"a"})
    with pytest.raises(UserError, match=r"could not be written \(no permission\)"):
        local_run("hf://someone/other/b.pth", "workdir")


def test_a_killed_conversion_starts_again(hub, monkeypatch):
    hub.add_commit(RELEASE, {"small/checkpoint-last.pth": b"a"})

    def killed(path, out, tokenizer):
        (out / "half").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "import_transdiff", killed)
    with pytest.raises(KeyboardInterrupt):
        local_run(FILE, "workdir")
    monkeypatch.setattr(making, "import_transdiff", lambda path, out, tokenizer: out.mkdir())
    assert list(local_run(FILE, "workdir").iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "workdir= is empty"),
        ("s3://bucket/run", "workdir=s3://bucket/run is no local path"),
        ("hf://owner", "hf://owner is no name of the hub"),
        ("hf://owner/name/model.onnx", "workdir=hf://owner/name/model.onnx names neither a repository nor a .pth file"),
        ("hf://owner/name", "hf://owner/name/config.json: the repository owner/name does not exist"),
    ],
)
def test_what_is_refused(hub, value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        local_run(value, "workdir")


def test_the_library_loads_them():
    assert td.load is load
