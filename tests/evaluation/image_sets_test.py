import io
import json
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.buckets import upload
from tests.support.sample_sets import write_samples
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation import image_sets
from transdiff_jax.evaluation.image_sets import open_images, sampler_settings
from transdiff_jax.generation import sample_reader
from transdiff_jax.generation.finished_set import read_finished
from transdiff_jax.generation.sample_files import SHARD_SIZE
from transdiff_jax.images.decoding import decode
from transdiff_jax.images.png import encode_png, save_png
from transdiff_jax.parallel import progress

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3)).astype(np.uint8)
SETTINGS = {"labels": [0, 0, 1, 1, 2, 2, 3], "seed": 4}


def read(path, size=3):
    batches = list(open_images(path, "--samples").batches(size))
    assert all(len(batch) == size for batch in batches[:-1])
    return np.concatenate([batch[np.arange(len(batch))] for batch in batches])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, IMAGES, SETTINGS)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_a_sample_set_is_its_results_alone_in_order(finished):
    images = open_images(finished, "--samples")
    assert (images.kind, images.labels, images.num_classes) == ("sample set", SETTINGS["labels"], 10)
    assert [len(batch) for batch in images.batches(3)] == [3, 3, 1]
    np.testing.assert_array_equal(read(finished), IMAGES)
    np.testing.assert_array_equal(read(finished / "samples.npz"), IMAGES)
    assert sampler_settings(images.record) == {"seed": 4, "num_labels": 7}


def test_sets_in_a_bucket(finished, bucket):
    upload(finished, bucket / "set")
    upload(finished / "images", bucket / "pictures")
    for name in ("set", "set/samples.npz", "pictures"):
        np.testing.assert_array_equal(read(bucket / name), IMAGES)
    (bucket / "set" / "images" / "000002.png").write_bytes(b"another")
    with pytest.raises(UserError, match=r"^gs://.*/000002\.png has changed since transdiff sample wrote it"):
        read(bucket / "set")
    with pytest.raises(UserError, match=r"^--samples=gs://.*/nothing: no such folder or file"):
        read(bucket / "nothing")


def test_a_set_of_more_than_a_shard(tmp_path):
    many = np.zeros((SHARD_SIZE + 2, 1, 1, 3), np.uint8)
    many[:, 0, 0, :2] = np.stack(np.divmod(np.arange(len(many)), 256), axis=-1)
    write_samples(tmp_path, many, {"labels": [0] * len(many), "seed": 0})
    np.testing.assert_array_equal(read(tmp_path, size=100), many)


def test_only_the_first_image_and_those_that_are_asked_for_are_read(finished, monkeypatch):
    decoded = []
    monkeypatch.setattr(sample_reader, "decode", lambda data, channels: decoded.append(data) or decode(data, channels))
    second = list(open_images(finished, "--samples").batches(4))[1]
    assert second[np.array([], int)].shape == (0, *IMAGES.shape[1:])
    np.testing.assert_array_equal(second[np.array([2, 0])], IMAGES[[6, 4]])
    expected = [(finished / "images" / f"{index:06d}.png").read_bytes() for index in (0, 4, 6)]
    assert sorted(decoded) == sorted(expected)


def test_a_folder_in_the_order_of_paths(tmp_path):
    for index, name in enumerate(["b/1.png", "a.png", "b/0.PNG", ".hidden/a.png", ".b.png", "notes.txt"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode_png(IMAGES[index]))
    images = open_images(tmp_path, "--samples")
    assert (images.kind, images.labels, images.num_classes) == ("folder", None, None)
    np.testing.assert_array_equal(read(tmp_path), IMAGES[[1, 2, 0]])


def test_links_to_folders_are_followed_once_each_way(tmp_path):
    for index, name in enumerate(["elsewhere/1.png", "set/b/0.png"]):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(encode_png(IMAGES[index]))
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "b" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "set"), IMAGES[[0, 1]])


def test_other_files_are_counted_once(tmp_path, caplog):
    for name in ("a.png", "b/c.png", "b/notes.txt", "d.webp", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode_png(IMAGES[0]))
    with caplog.at_level(logging.INFO, logger="absl"):
        assert len(read(tmp_path, size=1)) == 2
    assert caplog.messages == [f"{tmp_path}: 2 images; 2 other files left out"]


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "a" / "closed").mkdir(parents=True)
    save_png(tmp_path / "a" / "0.png", IMAGES[0])
    scan = os.scandir

    def refuse(path):
        if path == tmp_path / "a" / "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(image_sets.os, "scandir", refuse)
    with pytest.raises(UserError, match=r"a/closed cannot be read \(Permission denied\): fix its permissions"):
        open_images(tmp_path, "--samples")


def test_jpeg_and_grey_files_are_rgb(tmp_path):
    save_png(tmp_path / "b.png", IMAGES[0][..., :1])
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[1]).save(buffer, format="JPEG", quality=100, subsampling=0)
    (tmp_path / "a.jpeg").write_bytes(buffer.getvalue())
    found = read(tmp_path)
    np.testing.assert_array_equal(found[1], IMAGES[0][..., :1].repeat(3, axis=-1))
    assert np.abs(found[0].astype(int) - IMAGES[1]).mean() < 10


def test_what_no_set_is(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"--samples=.* holds no images \(\.png, \.jpg, \.jpeg\) and no samples\.json"):
        open_images(tmp_path, "--samples")
    with pytest.raises(UserError, match=r"neither a folder of images nor a \.npz file"):
        open_images(tmp_path / "a.txt", "--samples")
    with pytest.raises(UserError, match=r"--reference=.*absent: no such folder or file"):
        open_images(tmp_path / "absent", "--reference")


def test_images_that_end_too_early_or_differ_in_size(tmp_path):
    save_png(tmp_path / "a.png", IMAGES[0])
    (tmp_path / "b.png").write_bytes(encode_png(IMAGES[1])[:-30])
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image \(.*\); replace or remove it"):
        read(tmp_path)
    save_png(tmp_path / "b.png", IMAGES[1][:, :3])
    with pytest.raises(UserError, match=r"b\.png has 3x5 pixels, but .*a\.png has 4x5: all images of a set"):
        read(tmp_path)


def test_a_changed_image_is_found_by_its_digest(copy):
    save_png(copy / "images" / "000002.png", IMAGES[0])
    with pytest.raises(UserError, match=r"000002\.png has changed since transdiff sample wrote it"):
        read(copy)


def test_sets_that_are_not_complete(copy):
    (copy / "images" / "000002.png").unlink()
    with pytest.raises(UserError, match=r"000002\.png is missing; run the same transdiff sample command again"):
        read_finished(copy)
    save_png(copy / "images" / "000002.png", IMAGES[2])
    sums = (copy / "SHA256SUMS").read_text()
    for changed in (sums.replace(sums[90:95], "00000", 1), "".join(sums.splitlines(keepends=True)[:-2]), ""):
        (copy / "SHA256SUMS").write_text(changed)
        with pytest.raises(UserError, match=r"SHA256SUMS or samples.json has changed since transdiff sample wrote it"):
            read_finished(copy)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="SHA256SUMS is missing; run the same"):
        read_finished(copy)
    (copy / "SHA256SUMS").write_text(sums)
    record = json.loads((copy / "samples.json").read_text())
    del record["shards"]
    (copy / "samples.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"is not finished; run the same transdiff sample command again"):
        read_finished(copy)


def test_reading_says_how_far_it_has_come(finished):
    batches = open_images(finished, "--samples").batches(3)
    next(batches), next(batches)
    assert progress.reached() == "scored 3 of 7 images"
