import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.latents import Photographs, photo_config, save_tiny_weights
from tests.support.machines import shrink
from tests.support.photos import write_folder, write_tfds
from transdiff_jax.data.latents import encode, job
from transdiff_jax.data.latents.claim import Claim
from transdiff_jax.data.latents.encode import cache_latents
from transdiff_jax.data.latents.format import check_all
from transdiff_jax.data.latents.source import LatentSource
from transdiff_jax.data.sources import folder_list, list_file
from transdiff_jax.data.sources.folder_list import list_folder
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.data.sources.tfds import TfdsSource
from transdiff_jax.errors import UserError
from transdiff_jax.parallel import progress
from transdiff_jax.storage.bucket_path import BucketPath
from transdiff_jax.storage.files import lock
from transdiff_jax.tokenizer.make import make_tokenizer

COUNT, SHARD = 22, 9


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny_weights(tmp_path_factory.mktemp("kl16") / "weights")


@pytest.fixture
def photographs(monkeypatch):
    """A function that sets the images to cache; its list `read` holds the indices that were read."""
    read = []

    def use(source):
        class Counted:
            class_names, id = source.class_names, staticmethod(source.id)

            def __len__(self):
                return len(source)

            def __getitem__(self, index):
                read.append(index)
                return source[index]

        monkeypatch.setattr(encode, "open_source", lambda *_: Counted())
        return read

    use(Photographs(COUNT))
    use.read = read
    return use


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "open_source", lambda *_: Photographs(COUNT))
        cache_latents(photo_config(weights), out, shard_records=SHARD)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def shard(out, index):
    return out / f"latents-0000{index}-of-00003.array_record"


def moments(out):
    source = LatentSource(out)
    return np.stack([source[index]["moments"] for index in range(len(source))]).astype(np.float32)


def test_layout(finished):
    assert set(contents(finished)) == {
        *(f"latents-0000{index}-of-00003.array_record" for index in range(3)),
        *("labels.npy", "ids.json.gz", "manifest.json"),
    }
    assert [shard.records for shard in check_all(finished).shards] == [9, 9, 4]


def test_a_finished_job_reads_and_changes_nothing(weights, copy, photographs):
    before = contents(copy)
    cache_latents(photo_config(weights), copy, shard_records=SHARD)
    assert photographs.read == []
    assert contents(copy) == before
    assert not (copy / "progress").exists()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_alone_is_made_again(weights, finished, copy, photographs, damage):
    data = bytearray(shard(copy, 1).read_bytes())
    data[1000] ^= 1
    shard(copy, 1).unlink()
    if damage == "changed":
        shard(copy, 1).write_bytes(data)
    cache_latents(photo_config(weights), copy, shard_records=SHARD)
    assert sorted(photographs.read) == list(range(9, 18))
    assert contents(copy) == contents(finished)


def test_another_batch_size_is_equal_to_within_rounding(weights, finished, photographs, tmp_path):
    config = photo_config(weights, tokenizer={"slice_size": 1})
    cache_latents(config, tmp_path / "out", shard_records=SHARD)
    ours, theirs = moments(tmp_path / "out"), moments(finished)
    np.testing.assert_allclose(ours, theirs, rtol=2**-10, atol=1e-4)


def test_float16_keeps_eleven_bits(weights, finished):
    tokenizer, images = make_tokenizer(photo_config(weights)), Photographs(COUNT)
    exact = tokenizer.moments(jnp.stack([images[i]["image"] / np.float32(127.5) - 1 for i in range(COUNT)]))
    # The tolerance is half a unit in the last place, and a little because batches of other sizes round differently.
    np.testing.assert_allclose(moments(finished)[:, 0], exact, rtol=2**-11, atol=2e-6)


def test_unreadable_records_are_skipped_and_named(weights, finished, photographs, tmp_path):
    unreadable = {0, 8, 18, 19, 20, 21}  # so the last file has no records
    photographs(Photographs(COUNT, unreadable))
    config = photo_config(weights, data={"max_unreadable": 0.3})
    manifest = cache_latents(config, tmp_path / "out", shard_records=SHARD)
    assert manifest.skipped == [Photographs(COUNT).id(index) for index in sorted(unreadable)]
    assert [shard.records for shard in manifest.shards] == [7, 9, 0]
    source = LatentSource(tmp_path / "out")
    kept = [index for index in range(COUNT) if index not in unreadable]
    assert [source.id(index) for index in range(len(source))] == [Photographs(COUNT).id(index) for index in kept]
    np.testing.assert_allclose(moments(tmp_path / "out"), moments(finished)[kept], rtol=2**-10, atol=1e-4)
    assert check_all(tmp_path / "out") == manifest


def test_a_record_of_tfds_is_read_once_with_its_id(weights, tmp_path, monkeypatch):
    directory = write_tfds(write_folder(tmp_path / "folder"), tmp_path / "tfds")
    data = {"source": "tfds:photos", "directory": str(directory), "crop": "center"}
    source = open_source(photo_config(weights, data=data).data)
    ids = [source.id(index) for index in range(len(source))]
    read, features = [], TfdsSource._features
    monkeypatch.setattr(TfdsSource, "_features", lambda self, index: read.append(index) or features(self, index))
    cache_latents(photo_config(weights, data=data), tmp_path / "out", shard_records=SHARD)
    assert sorted(read) == list(range(16))
    latents = LatentSource(tmp_path / "out")
    assert [latents.id(index) for index in range(len(latents))] == ids


def test_a_stopped_job_goes_on_without_listing_the_folder_again(weights, tmp_path, monkeypatch):
    folder, listed = write_folder(tmp_path / "folder"), []
    (folder / "flower" / "007.png").write_bytes(b"")
    monkeypatch.setattr(folder_list, "SETTLED", 0.0)
    monkeypatch.setattr(list_file, "list_folder", lambda path: listed.append(path) or list_folder(path))
    data = {"source": f"folder:{folder}", "crop": "center"}
    with pytest.raises(UserError, match="are unreadable so far"):
        cache_latents(photo_config(weights, data=data), tmp_path / "out", shard_records=SHARD)
    allowing = photo_config(weights, data={**data, "max_unreadable": 0.1})
    assert cache_latents(allowing, tmp_path / "out", shard_records=SHARD).records == 15
    assert listed == [folder]
    assert not (tmp_path / "out" / "progress").exists()


def test_too_many_unreadable_records_stop_the_job(weights, photographs, tmp_path):
    photographs(Photographs(COUNT, {10, 12, 14}))
    config = photo_config(weights, data={"max_unreadable": 0.1})
    with pytest.raises(UserError, match=r"^3 of the 22 records of .* are unreadable so far, more than .*=0\.1 allows"):
        cache_latents(config, tmp_path, shard_records=SHARD)
    assert shard(tmp_path, 0).exists()
    assert not shard(tmp_path, 1).exists()
    allowing = photo_config(weights, data={"max_unreadable": 0.2})
    photographs.read.clear()
    assert cache_latents(allowing, tmp_path, shard_records=SHARD).records == 19
    assert min(photographs.read) == 9, "what was there is kept"


def test_a_full_disk_ends_in_one_line_and_keeps_what_is_written(weights, finished, photographs, tmp_path, monkeypatch):
    real, made = job.ArrayRecordWriter, []

    class Full:
        def __init__(self, *arguments):
            made.append(self)
            self.writer = real(*arguments)
            self.write = self.writer.write

        def close(self):
            self.writer.close()
            if len(made) == 2:
                raise RuntimeError("write() failed: No space left on device; writing x\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(job, "ArrayRecordWriter", Full)
        with pytest.raises(UserError) as caught:
            cache_latents(photo_config(weights), tmp_path, shard_records=SHARD)
    assert str(caught.value).startswith(f"{shard(tmp_path, 1)} could not be written (write() failed: No space left")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.glob("*record*")] == [shard(tmp_path, 0).name]
    photographs.read.clear()
    cache_latents(photo_config(weights), tmp_path, shard_records=SHARD)
    assert min(photographs.read) == SHARD
    assert contents(tmp_path) == contents(finished)


def test_notes_that_a_kill_cut_short_or_that_name_another_file_do_not_count(weights, finished, photographs, tmp_path):
    photographs(Photographs(COUNT, {20, 21}))
    with pytest.raises(UserError):
        cache_latents(photo_config(weights), tmp_path, shard_records=SHARD)
    photographs(Photographs(COUNT))
    notes = [tmp_path / "progress" / f"0000{index}.json" for index in (0, 1)]
    notes[0].write_bytes(notes[0].read_bytes()[:100])
    notes[1].write_bytes(notes[1].read_bytes().replace(b'"flower/9"', b'"flower/7"'))
    (tmp_path / ".latents-00002.1-ab.tmp").write_text("of a writer that was killed")
    photographs.read.clear()
    cache_latents(photo_config(weights), tmp_path, shard_records=SHARD)
    assert sorted(photographs.read) == list(range(COUNT))
    assert contents(tmp_path) == contents(finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": {"dtype": "bfloat16"}}, "tokenizer_dtype=float32"),
        ({"data": {"split": "test"}}, "split=train"),
        ({"data": {"image_size": 16}, "model": {"latent_size": 1}}, "image_size=32, shape=(2, 2, 2, 8)"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_folder_of_other_settings_is_refused(weights, copy, photographs, change, message, complete):
    if not complete:
        shard(copy, 1).unlink()
        photographs(Photographs(COUNT, set(range(9, 12))))
        with pytest.raises(UserError, match="unreadable"):
            cache_latents(photo_config(weights), copy, shard_records=SHARD)
    before = sorted(copy.rglob("*"))
    with pytest.raises(UserError) as caught:
        cache_latents(photo_config(weights, **change), copy, shard_records=SHARD)
    assert f"holds latents made with {message}; choose another folder" in str(caught.value)
    assert sorted(copy.rglob("*")) == sorted({*before, copy / ".lock"})


def test_other_weights_dtype_and_source_are_refused(weights, copy, photographs, tmp_path):
    other = save_tiny_weights(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="made with tokenizer_sha256="):
        cache_latents(photo_config(other), copy, shard_records=SHARD)
    with pytest.raises(UserError, match="made with dtype=float16;"):
        cache_latents(photo_config(weights), copy, "bfloat16", shard_records=SHARD)
    photographs(Photographs(COUNT + 1))
    with pytest.raises(UserError, match="made with source_records=22;"):
        cache_latents(photo_config(weights), copy, shard_records=SHARD)


def test_folders_that_cannot_be_used(weights, photographs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^out=.*file cannot be used"):
        cache_latents(photo_config(weights), tmp_path / "file")
    with pytest.raises(UserError, match=r"^out=.* holds other files \(manifest\.json, …\)"):
        cache_latents(photo_config(weights), weights)
    assert not (weights / ".lock").exists()
    (tmp_path / "new").mkdir()
    held = lock(tmp_path / "new" / ".lock")
    with pytest.raises(UserError, match="is in use by another process"):
        cache_latents(photo_config(weights), tmp_path / "new")
    held.close()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"crop": "random"}}, "cannot be cached: use config.data.crop=center"),
        ({"data": {"source": "latents:x"}}, "'latents:x' holds latents already"),
        (
            {
                "data": {"image_size": 8, "image_channels": 1},
                "tokenizer": {"kind": "pixels"},
                "model": {"latent_size": 4},
            },
            "config.tokenizer.kind='pixels': only kl16's latents are slow to make, so cache no others",
        ),
    ],
)
def test_what_cannot_be_cached(weights, tmp_path, sections, message):
    with pytest.raises(UserError) as caught:
        cache_latents(photo_config(weights, **sections), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_without_a_crop(weights, photographs, tmp_path):
    photographs(Photographs(COUNT, size=48))
    with pytest.raises(UserError, match=r"record china/0 of .* has shape \(48, 48, 3\), not \(32, 32, 3\)"):
        cache_latents(photo_config(weights), tmp_path)


def test_moments_that_the_dtype_cannot_hold(weights, photographs, tmp_path, monkeypatch):
    make = encode.make_tokenizer

    def large(config):
        tokenizer = make(config)
        params = dict(tokenizer.params)
        params["quant_conv"] = {"kernel": params["quant_conv"]["kernel"] * 1e6, "bias": params["quant_conv"]["bias"]}
        return dataclasses.replace(tokenizer, params=params)

    monkeypatch.setattr(encode, "make_tokenizer", large)
    with pytest.raises(UserError, match="the moments of record china/0 are not finite in float16: use dtype=bfloat16"):
        cache_latents(photo_config(weights), tmp_path / "half")
    cache_latents(photo_config(weights), tmp_path / "brain", "bfloat16")
    stored = moments(tmp_path / "brain")
    assert jnp.abs(stored[..., :4]).max() > 1e5
    # The posterior clamps log-variances, so its bounds mean the same as any number beyond them.
    assert (stored[..., 4:].min(), stored[..., 4:].max()) == (-30, 20)


def test_progress_is_logged(weights, photographs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "FIRST_LINE", 0)
    monkeypatch.setattr(progress, "SECONDS", 0)
    with caplog.at_level("INFO", logger="absl"):
        cache_latents(photo_config(weights), tmp_path, shard_records=SHARD)
    assert "cached 22 of 22, " in caplog.text
    assert "22 records are in" in caplog.text


def test_batches_that_fit_no_machine_are_refused_before_the_folder_is_made(weights, photographs, tmp_path, monkeypatch):
    shrink(monkeypatch, 2**30)
    for slice_size, place in ((2**16, "of host memory"), (2**11, "of each device")):
        config = photo_config(weights, tokenizer={"slice_size": slice_size})
        with pytest.raises(UserError, match=f"^a batch takes at least .* {place}.*: lower config.tokenizer.slice_size"):
            cache_latents(config, tmp_path / "out")
    assert photographs.read == []
    assert not (tmp_path / "out").exists()


def test_a_job_that_has_lost_its_folder_uploads_nothing(weights, photographs, bucket, monkeypatch):
    def lose(latents, shard, write=job.LatentJob.write_shard):
        latents._claim._lock._lost = True  # as its heartbeat finds
        return write(latents, shard)

    monkeypatch.setattr(job.LatentJob, "write_shard", lose)
    with pytest.raises(UserError, match=r"^gs://.* was taken over by another process"):
        cache_latents(photo_config(weights), bucket, shard_records=SHARD)
    assert set(bucket.sizes()) == {".lock", "progress/settings.json"}


def test_hidden_files_that_a_kill_leaves_are_not_another_folder(finished, tmp_path):
    (tmp_path / ".shared.0123.tmp").write_text("")
    claim = Claim(tmp_path)
    claim.take()
    assert not job.LatentJob(tmp_path, check_all(finished).settings, claim).open().any()
    claim.close()
    assert not (tmp_path / ".shared.0123.tmp").exists()


def test_in_a_bucket_a_stopped_job_goes_on_and_ends_with_the_same_bytes(
    weights, finished, photographs, bucket, monkeypatch
):
    class Interrupted(BaseException):
        pass

    upload = BucketPath.upload

    def stop(path, source):
        if path.name == shard(bucket, 1).name:
            raise Interrupted
        upload(path, source)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(BucketPath, "upload", stop)
        cache_latents(photo_config(weights), bucket, shard_records=SHARD)
    assert [path.name for path in bucket.glob("*.array_record")] == [shard(bucket, 0).name]
    photographs.read.clear()
    cache_latents(photo_config(weights), bucket, shard_records=SHARD)
    assert sorted(photographs.read) == list(range(SHARD, COUNT))
    assert contents(bucket) == contents(finished)
    assert check_all(bucket).records == COUNT
    np.testing.assert_array_equal(moments(bucket), moments(finished))
    shard(bucket, 1).write_bytes(b"cut short")
    with pytest.raises(UserError, match="bytes instead of"):
        LatentSource(bucket)
