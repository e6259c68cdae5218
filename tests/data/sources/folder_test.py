import gc
import multiprocessing
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from tests.support.photos import crop, encoded, write_folder
from transdiff_jax.data.sources.folder import FolderSource
from transdiff_jax.data.sources.listing import Listing
from transdiff_jax.errors import UserError
from transdiff_jax.images.decoding import UnreadableImage

FILE = encoded(crop("china", 0))


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(FILE)


def ids(source):
    return [source.id(index) for index in range(len(source))]


def test_records_are_in_sorted_order_and_classes_too(tmp_path):
    write_folder(tmp_path, count=4, names=("zebra", "ant"))
    source = FolderSource(tmp_path, 3)
    assert source.class_names == ("ant", "zebra")
    assert ids(source) == [f"{name}/00{k}.{s}" for name in ("ant", "zebra") for k, s in enumerate(["JPEG", "png"] * 2)]
    assert source.labels().tolist() == [0] * 4 + [1] * 4
    assert source.labels().dtype == np.int32
    np.testing.assert_array_equal(source[5]["image"], crop("china", 1))
    assert [source[index]["label"] for index in range(8)] == source.labels().tolist()


def test_what_counts_as_an_image(tmp_path):
    write(tmp_path, "a/x.JPG", "a/b/c/y.Png", "a/b.webp", "a/.hidden.png", "a/.d/z.png", "a/notes.txt", ".git/k/x.png")
    write(tmp_path, "loose.png")
    source = FolderSource(tmp_path, 3)
    assert (source.class_names, ids(source)) == (("a",), ["a/b.webp", "a/b/c/y.Png", "a/x.JPG"])
    np.testing.assert_array_equal(source[2]["image"], crop("china", 0))  # a .JPG that is a PNG


def test_a_class_folder_may_be_a_link_but_links_inside_are_not_followed(tmp_path):
    write(tmp_path, "elsewhere/x.png", "root/a/y.png")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "again").symlink_to(tmp_path / "root")
    assert ids(FolderSource(tmp_path / "root", 3)) == ["a/y.png", "b/x.png"]


def test_folders_named_by_wnids_have_the_classes_of_imagenet(tmp_path):
    write(tmp_path, "n15075141/a.JPEG", "n01440764/b.JPEG", "n01443537/c.JPEG")
    source = FolderSource(tmp_path, 3)
    assert source.labels().tolist() == [0, 1, 999]
    assert len(source.class_names) == 1000
    assert source.class_names[1] == "goldfish, Carassius auratus"
    write(tmp_path, "cat/d.JPEG")  # a name that is not a wnid: the order is the sorted one
    assert FolderSource(tmp_path, 3).labels().tolist() == [0, 1, 2, 3]


def test_names_that_are_not_text(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (Path(f"{folder}/\udcff\u00e9.png")).write_bytes(FILE)
    source = FolderSource(tmp_path, 3)
    assert ids(source) == ["a/\udcff\u00e9.png"]
    assert source[0]["image"].shape == (20, 28, 3)


@pytest.mark.parametrize(
    ("paths", "name", "message"),
    [
        ([], "missing", "missing: No such file or directory; name a folder with one subfolder of images"),
        (["x.png"], "x.png", "x.png: Not a directory; name a folder"),
        ([], "", "there are no subfolders"),
        (["x.png", ".hidden/x.png"], "", "there are no subfolders"),
        (["a/x.png", "b/notes.txt"], "", "class folder b has no image"),
    ],
)
def test_folders_that_cannot_be_a_source(tmp_path, paths, name, message):
    write(tmp_path, *paths)
    with pytest.raises(UserError, match=message) as caught:
        FolderSource(tmp_path / name, 3)
    assert str(caught.value).startswith(f"config.data.source names the folder {tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_file_that_went_away_is_unreadable(tmp_path):
    write(tmp_path, "a/x.png", "a/y.png")
    source = FolderSource(tmp_path, 3)
    (tmp_path / "a" / "x.png").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        source[0]
    assert source[1]["image"].shape == (20, 28, 3)


def paths_of(pickled, queue):
    listing = cloudpickle.loads(pickled)
    queue.put(([listing.path(index) for index in range(0, len(listing), 997)], int(listing.labels.sum())))


def test_a_large_listing_pickles_small_and_is_the_same_in_another_process():
    entries = [(f"n{k // 100:08d}/image_{k}.JPEG", k // 100) for k in range(100_000)]
    listing = Listing(b"".join(path.encode() + b"\0" for path, _ in entries), np.array([label for _, label in entries]))
    pickled = cloudpickle.dumps(listing)
    assert len(pickled) < 400
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=paths_of, args=(pickled, queue))
    process.start()
    paths, total = queue.get(timeout=60)
    process.join()
    assert paths == [path for path, _ in entries[::997]]
    assert total == sum(label for _, label in entries)
    with pytest.raises(IndexError):
        listing.path(len(entries))


def test_a_listing_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    listing = Listing(b"a/b.png\0", np.array([3]))
    assert list(tmp_path.iterdir()) == []
    assert listing.path(0) == "a/b.png"
    (place, *_), *_ = listing._shared.__getstate__()
    place = Path(place)
    assert place.exists()
    del listing
    gc.collect()
    assert not place.exists()
