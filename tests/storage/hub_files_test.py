import hashlib
import importlib
import sys

import pytest

from tests.support.hub_server import served
from transdiff_jax.errors import UserError
from transdiff_jax.storage.hub_errors import MissingFileError
from transdiff_jax.storage.hub_files import HubName, fetch, parse_name, pin

constants = pytest.importorskip("huggingface_hub.constants")

REPO = "owner/models"
LARGE, SMALL = HubName(REPO, "main", "large/a.pth"), HubName(REPO, "main", "config.json")
CONTENT = bytes(range(256)) * 8


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with served(monkeypatch, tmp_path / "cache") as hub:
        hub.add_commit(REPO, {LARGE.path: CONTENT, SMALL.path: b"{}\n"})
        yield hub


@pytest.fixture
def quick(monkeypatch):
    """No second attempts, which huggingface_hub delays."""
    monkeypatch.setattr(importlib.import_module("huggingface_hub.utils._http").time, "sleep", lambda seconds: None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://owner/models", (REPO, "main", "")),
        ("hf://owner/models/", (REPO, "main", "")),
        ("hf://owner/models@v1/a/b.pth", (REPO, "v1", "a/b.pth")),
        ("hf://owner/models@refs%2Fpr%2F1", (REPO, "refs/pr/1", "")),
    ],
)
def test_names_have_three_parts(text, parts):
    assert parse_name(text) == parts
    assert parse_name(str(parse_name(text))) == parts


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner",
        "hf:/owner/a",
        "hf://owner/a/../b",
        "hf://owner/a//b",
        "hf://a/b@/c",
        "hf://a/b@..",
        "hf://a/b@%2Fc",
        "hf://a/b@%00",
        "hf://a/b/c\0",
    ],
)
def test_other_names_are_refused(text):
    with pytest.raises(UserError, match=r"is no name of the hub: write hf://OWNER/REPO"):
        parse_name(text)


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_a_file_is_downloaded_once(hub, name):
    commit = hub.files(REPO)[0]
    assert fetch(name).read_bytes() == hub.files(REPO)[1][name.path]
    fetch(name)
    asked = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert asked == [f"/{REPO}/resolve/{commit}/{name.path}"]
    assert ("GET", f"/{REPO}/resolve/{commit}/{name.path}") in hub.requests


def test_a_pinned_file_needs_no_server_twice(hub):
    pinned = pin(LARGE)
    assert pinned.revision == hub.files(REPO)[0]
    fetch(pinned)
    hub.requests.clear()
    hub.add_commit(REPO, {LARGE.path: b"newer"})
    assert fetch(pinned).read_bytes() == CONTENT
    assert hub.requests == []
    assert fetch(LARGE).read_bytes() == b"newer"


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_a_file_that_arrives_damaged_is_removed(hub, name):
    hub.damaged.add(name.path)
    with pytest.raises(UserError, match=rf"{name.path} has the digest [0-9a-f]*, but the hub names .* is removed"):
        fetch(name)
    hub.damaged.clear()
    assert fetch(name).read_bytes() == hub.files(REPO)[1][name.path]


def test_damage_on_the_disk_is_found_later(hub):
    path = fetch(LARGE).resolve()
    assert path.name == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(UserError, match="the copy is removed"):
        fetch(LARGE)
    assert fetch(LARGE).read_bytes() == CONTENT


def test_a_copy_without_a_link_is_compared_with_what_the_hub_names(hub):
    path = fetch(LARGE)
    blob = path.resolve()
    path.unlink()
    path.write_bytes(blob.read_bytes())  # as on a file system without links
    assert fetch(LARGE) == path
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(UserError, match="the copy is removed"):
        fetch(LARGE)


def test_a_cache_that_cannot_be_written_is_one_line(hub, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "/cache/blob")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(UserError, match=r"a\.pth: /cache/blob could not be written \(No space left on device\)"):
        fetch(LARGE)


def test_without_the_server_the_last_commit_counts_loudly(hub, caplog, quick):
    fetch(LARGE)
    commit = hub.files(REPO)[0]
    hub.stop()
    assert fetch(LARGE).read_bytes() == CONTENT
    assert f"taking commit {commit}, seen last" in caplog.text


def test_without_the_server_and_a_copy(hub, quick):
    hub.stop()
    with pytest.raises(UserError, match=r"^hf://owner/models/large/a.pth: the hub cannot be reached .*not downloaded"):
        fetch(LARGE)


def test_offline(hub, monkeypatch, caplog):
    fetch(LARGE)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(LARGE).read_bytes() == CONTENT
    assert "the hub cannot be reached" in caplog.text
    with pytest.raises(UserError, match=r"the hub cannot be reached .*offline mode"):
        fetch(SMALL)
    assert hub.requests == []


def test_a_connection_that_breaks(hub, quick):
    hub.lost.add(LARGE.path)
    with pytest.raises(UserError, match="the hub cannot be reached"):
        fetch(LARGE)
    hub.lost.clear()
    assert fetch(LARGE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (HubName("owner/other", path="a"), "the repository owner/other does not exist or is private"),
        (HubName(REPO, "v9", "a"), "the repository owner/models has no such revision"),
        (HubName(REPO, path="b"), "the repository owner/models has no such file"),
        (HubName("owner/.a", path="b"), "Repo id must"),
    ],
)
def test_what_is_not_there(hub, name, message):
    with pytest.raises(UserError, match=f"^{name}: {message}") as caught:
        fetch(name)
    assert isinstance(caught.value, MissingFileError) == message.endswith("file")
    assert "\n" not in str(caught.value)


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs an extra that is not installed: pip install huggingface_hub$"):
        fetch(LARGE)
