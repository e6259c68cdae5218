import os
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from tests.support.buckets import upload
from tests.support.latents import Photographs, photo_config, save_tiny_weights
from transdiff_jax.data.latents import encode, format
from transdiff_jax.data.latents import source as latent_source
from transdiff_jax.data.latents.format import check_all
from transdiff_jax.data.latents.source import LatentSource, open_latents
from transdiff_jax.data.pipeline import TrainingData, open_records, training_rows
from transdiff_jax.errors import UserError
from transdiff_jax.tokenizer.make import make_tokenizer

COUNT, UNREADABLE = 20, 5
KEPT = [index for index in range(COUNT) if index != UNREADABLE]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


@pytest.fixture(scope="module")
def cached(weights, tmp_path_factory):
    """Twenty photographs, one of them unreadable, in three files."""
    out = tmp_path_factory.mktemp("cached") / "latents"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "open_source", lambda *_: Photographs(COUNT, {UNREADABLE}))
        encode.cache_latents(photo_config(weights, data={"max_unreadable": 0.1}), out, shard_records=8)
    return out


@pytest.fixture
def copy(cached, tmp_path):
    return shutil.copytree(cached, tmp_path / "copy")


def latent_config(weights, folder, mrar=False, **sections):
    data = {"source": f"latents:{folder}", **sections.pop("data", {})}
    return photo_config(weights, mrar, data=data, **sections)


def test_training_reads_the_same_rows_from_a_bucket(weights, cached, bucket, tmp_path):
    read = []
    for place in (cached, upload(cached, bucket / "latents")):
        data = TrainingData(latent_config(weights, place, train={"batch_size": 4}), tmp_path)
        read.append([next(data) for _ in range(3)])
        data.close()
    jax.tree.map(np.testing.assert_array_equal, *read)


def test_records_are_the_moments_of_both_flips(weights, cached):
    source, photographs = LatentSource(cached), Photographs(COUNT)
    tokenizer = make_tokenizer(photo_config(weights))
    assert [source.id(index) for index in range(len(source))] == [photographs.id(index) for index in KEPT]
    assert source.labels().dtype == np.int32
    assert source.labels().tolist() == [index % 2 for index in KEPT]
    assert source.manifest.skipped == [photographs.id(UNREADABLE)]
    assert source.class_names == photographs.class_names
    images = jnp.stack([photographs[index]["image"] / np.float32(127.5) - 1 for index in KEPT])
    expected = np.stack([tokenizer.moments(flip) for flip in (images, images[:, :, ::-1])], axis=1)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.1
    for index, wanted in enumerate(expected):
        record = source[index]
        assert (record["moments"].shape, record["moments"].dtype) == ((2, 2, 2, 8), np.float16)
        assert record["label"] == KEPT[index] % 2
        np.testing.assert_allclose(record["moments"], wanted, atol=4e-3)


@pytest.mark.parametrize("index", [-1, len(KEPT)])
def test_records_out_of_range(cached, index):
    with pytest.raises(IndexError):
        LatentSource(cached)[index]


def test_a_source_opens_its_files_once_in_each_process(cached, monkeypatch):
    opened, real = [], ArrayRecordReader
    monkeypatch.setattr(
        latent_source, "ArrayRecordReader", lambda *args, **kw: opened.append(args[0]) or real(*args, **kw)
    )
    source = LatentSource(cached)
    assert opened == []
    first = source[0]["moments"]
    np.testing.assert_array_equal(source[0]["moments"], first)
    assert len(opened) == 1
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent[0]["moments"], first)
    assert len(opened) == 2
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    np.testing.assert_array_equal(source[0]["moments"], first)
    assert len(opened) == 3


def content(folder):
    """Everything that can be read from a folder."""
    source = LatentSource(folder)
    records = [source[index] for index in range(len(source))]
    moments = b"".join(record["moments"].tobytes() for record in records)
    return moments, [record["label"] for record in records], [source.id(k) for k in range(len(source))], source.manifest


def positions(size):
    """All bytes of a small file; for a large one, its beginning, which holds the records, and some of the rest."""
    return [*range(min(size, 2500)), *range(2500, size, 1009), *range(max(2500, size - 300), size)]


@pytest.mark.parametrize("name", ["manifest.json", "labels.npy", "ids.json.gz", "latents-00001-of-00003.array_record"])
def test_a_flipped_byte_is_found_or_changes_nothing(copy, name):
    """Reading may miss a flipped bit in padding, which stores nothing; the full check misses none."""
    path, whole = copy / name, content(copy)
    original, found = path.read_bytes(), 0
    for position in positions(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            assert content(copy) == whole
        except UserError as error:
            found += 1
            assert str(path) in str(error)
            assert "\n" not in str(error)
        with pytest.raises(UserError, match=f"{name} is"):
            check_all(copy)
    path.write_bytes(original)
    assert content(copy) == whole
    assert found > (400 if name.endswith("array_record") else 0.99 * len(original))


@pytest.mark.parametrize("name", ["manifest.json", "labels.npy", "ids.json.gz", "latents-00001-of-00003.array_record"])
@pytest.mark.parametrize("change", ["missing", "short", "long"])
def test_files_that_are_not_whole(copy, name, change):
    path = copy / name
    data = path.read_bytes()
    path.unlink()
    if change != "missing":
        path.write_bytes(data[: len(data) // 2] if change == "short" else data + b"x")
    for read in (content, check_all):
        with pytest.raises(UserError, match=r"is damaged|no complete set of cached latents"):
            read(copy)


def test_files_that_were_exchanged_are_found_by_the_check(copy):
    first, second = (copy / f"latents-0000{index}-of-00003.array_record" for index in (0, 1))
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    with pytest.raises(UserError, match=r"latents-00000-of-00003\.array_record is damaged .*, as in 1 more file"):
        check_all(copy)


def test_another_format_is_refused(copy, monkeypatch):
    monkeypatch.setattr(format, "FORMAT", 2)
    with pytest.raises(UserError, match="is of format 1, but this version reads format 2"):
        LatentSource(copy)


def test_damage_ends_training_in_one_line(weights, copy, tmp_path):
    path = copy / "latents-00000-of-00003.array_record"
    data = bytearray(path.read_bytes())
    data[data.index(LatentSource(copy)[2]["moments"].tobytes()) + 9] ^= 4
    path.write_bytes(data)
    training = TrainingData(latent_config(weights, copy), tmp_path)
    with pytest.raises(UserError, match=r"latents-00000-of-00003\.array_record is damaged \(.*hash mismatch"):
        for _ in range(4):
            next(training)
    training.close()


@pytest.mark.parametrize("mrar", [False, True], ids=["one_step", "mrar"])
def test_batches_hold_the_moments_that_they_name(weights, cached, mrar, tmp_path):
    config, source = latent_config(weights, cached, mrar), LatentSource(cached)
    training = TrainingData(config, tmp_path)
    batch = next(training)
    training.close()
    images = config.model.num_images
    assert set(batch) == {"moments", "label", "index"}
    assert (batch["moments"].shape, batch["moments"].dtype) == ((8, images, 2, 2, 8), np.float16)
    for row in range(8):
        for moments, index in zip(batch["moments"][row], batch["index"][row], strict=True):
            np.testing.assert_array_equal(moments, source[int(index)]["moments"][0])
            assert source.labels()[index] == batch["label"][row]


def test_rows_are_those_of_the_images(weights, cached):
    """The same seed reads the same records in the same order, with the same flips, from images and from latents."""
    photographs = Photographs(len(KEPT))
    images = training_rows(photo_config(weights, data={"flip": True}), photographs)
    config = latent_config(weights, cached, data={"flip": True})
    cached_rows = training_rows(config, open_records(config))
    source, flips = LatentSource(cached), []
    for position in range(60):
        image, latent = images[position], cached_rows[position]
        (index,) = image["index"]
        assert latent["index"] == [index]
        flips.append(not np.array_equal(image["image"][0], photographs[index]["image"]))
        np.testing.assert_array_equal(latent["moments"][0], source[int(index)]["moments"][int(flips[-1])])
    assert 15 < sum(flips) < 45


def test_bfloat16_rows(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "open_source", lambda *_: Photographs(8))
    encode.cache_latents(photo_config(weights), tmp_path / "out", "bfloat16")
    training = TrainingData(latent_config(weights, tmp_path / "out"), tmp_path)
    batch = next(training)
    training.close()
    assert batch["moments"].dtype == jax.numpy.bfloat16
    assert np.isfinite(batch["moments"].astype(np.float32)).all()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"crop": "random"}}, "config.data.crop=random must be none, with which"),
        ({"data": {"split": "test"}}, "config.data.split=test must be train, with which"),
        ({"data": {"image_size": 64}, "model": {"latent_size": 4}}, "config.data.image_size=64 must be 32"),
        ({"model": {"latent_channels": 8}}, "config.model.latent_channels=8 must be 4"),
    ],
)
def test_latents_that_do_not_fit_the_run(weights, cached, sections, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        open_latents(latent_config(weights, cached, **sections))


def test_latents_of_other_weights_are_refused(cached, tmp_path):
    other = save_tiny_weights(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"digest [0-9a-f]{12}…, but config\.tokenizer\.weights=.*other has digest"):
        open_latents(latent_config(other, cached))


def test_folders_without_latents_or_weights(weights, cached, tmp_path):
    with pytest.raises(UserError, match="holds no complete set of cached latents"):
        open_latents(latent_config(weights, tmp_path))
    with pytest.raises(UserError, match=r"config\.tokenizer\.weights='nowhere' holds no KL-16 weights"):
        open_latents(latent_config("nowhere", cached))


def test_the_folder_may_start_at_home(weights, cached, monkeypatch):
    monkeypatch.setenv("HOME", str(cached.parent))
    assert len(open_latents(latent_config(weights, f"~/{cached.name}"))) == len(KEPT)
