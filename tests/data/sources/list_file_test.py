import os
import shutil

import pytest

from tests.support.photos import crop, encoded
from transdiff_jax.config import DataConfig
from transdiff_jax.data.sources import folder_list, list_file
from transdiff_jax.data.sources.folder_list import list_folder
from transdiff_jax.data.sources.list_file import LIST, list_once, read_list, write_list
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.errors import UserError

FILE = encoded(crop("china", 0))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for name in ("ant/x.png", "ant/deep/er/y.png", "bee/z.png", "bee/\udcff\u00e9.png", "bee/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(FILE)
    return root


@pytest.fixture
def scans(monkeypatch):
    """The folders that were listed. A folder counts as settled at once."""
    seen = []
    monkeypatch.setattr(folder_list, "SETTLED", 0.0)
    monkeypatch.setattr(list_file, "list_folder", lambda folder: seen.append(folder) or list_folder(folder))
    return seen


def test_a_list_comes_back(folder, tmp_path):
    listed = list_folder(folder)
    assert listed.classes == {"ant": 2, "bee": 2}
    assert set(listed.changes) == {"ant", "ant/deep", "ant/deep/er", "bee"}
    write_list(tmp_path / LIST, listed)
    assert read_list(tmp_path / LIST) == listed


def test_a_second_start_lists_nothing_and_reads_the_same(folder, tmp_path, scans):
    config, kept = DataConfig(source=f"folder:{folder}", image_channels=3), tmp_path / "run"
    sources = [open_source(config, kept), open_source(config, kept), open_source(config)]
    assert scans == [folder]
    for source in sources:
        ids = [source.id(index) for index in range(len(source))]
        assert ids == ["ant/deep/er/y.png", "ant/x.png", "bee/z.png", "bee/\udcff\u00e9.png"]
        assert source.labels().tolist() == [0, 0, 1, 1]
        assert source[3]["image"].shape == (20, 28, 3)


CHANGES = {
    "a new image": lambda root: (root / "bee" / "new.png").write_bytes(FILE),
    "an image gone": lambda root: (root / "bee" / "z.png").unlink(),
    "renamed": lambda root: (root / "bee" / "z.png").rename(root / "bee" / "y.png"),
    "deep below": lambda root: (root / "ant" / "deep" / "er" / "new.png").write_bytes(FILE),
    "a new folder below": lambda root: (root / "ant" / "new").mkdir(),
    "a new class": lambda root: shutil.copytree(root / "ant", root / "cat"),
    "a class gone": lambda root: shutil.rmtree(root / "ant"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_that_changed_is_listed_again(folder, tmp_path, scans, change):
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_dir()}
    list_once(folder, tmp_path)
    change(folder)
    for path, changed in times.items():  # as rsync does
        if path.exists():
            os.utime(path, ns=(changed, changed))
    assert list_once(folder, tmp_path) == list_folder(folder)
    assert len(scans) == 2
    list_once(folder, tmp_path)
    assert len(scans) == 2


def test_a_folder_that_changed_just_now_or_has_no_times_is_listed_at_each_start(folder, tmp_path, scans, monkeypatch):
    monkeypatch.setattr(folder_list, "SETTLED", 60.0)
    for _ in range(2):
        list_once(folder, tmp_path / "recent")
    monkeypatch.setattr(folder_list, "SETTLED", 0.0)
    monkeypatch.setattr(folder_list, "_changed", lambda folder: 0)
    for _ in range(2):
        list_once(folder, tmp_path / "timeless")
    assert len(scans) == 4


def flipped(data):
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


DAMAGE = {"flipped": flipped, "cut": lambda data: data[:-1], "empty": lambda data: b"", "other": lambda data: b"a\nb"}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_list_is_made_again(folder, tmp_path, scans, damage, caplog):
    whole = list_once(folder, tmp_path)
    path = tmp_path / LIST
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="does not match its own digest"):
        read_list(path)
    with caplog.at_level("WARNING", logger="absl"):
        assert list_once(folder, tmp_path) == whole
    assert "is not used (its content does not match its own digest)" in caplog.text
    assert len(scans) == 2


def test_a_list_of_another_folder_is_not_used(folder, tmp_path, scans):
    list_once(folder, tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert list_once(copy, tmp_path).folder == str(copy)
    assert scans == [folder, copy]


def test_the_folder_of_images_is_only_read(folder, tmp_path, scans, monkeypatch):
    before = sorted(folder.rglob("*"))
    list_once(folder, tmp_path)
    assert sorted(folder.rglob("*")) == before


def test_a_list_that_cannot_be_written_or_read_is_one_line(folder, tmp_path, scans):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"image_folder.list cannot be read: Not a directory"):
        list_once(folder, tmp_path / "file")
    (tmp_path / LIST).mkdir()
    with pytest.raises(UserError, match=r"image_folder.list could not be written \(Is a directory\)"):
        list_once(folder, tmp_path)


def test_a_folder_that_is_gone_is_one_line(folder, tmp_path, scans):
    list_once(folder, tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"names the folder .*images: No such file or directory"):
        list_once(folder, tmp_path)
