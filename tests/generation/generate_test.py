import dataclasses
import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.configs import tiny_config
from tests.support.slow import slow
from transdiff_jax.checkpoints.weights import Weights
from transdiff_jax.config import MeshConfig, make_config
from transdiff_jax.errors import UserError
from transdiff_jax.evaluation.image_sets import open_images
from transdiff_jax.generation import archive_writer, image_writer, sample_files, samples_npz
from transdiff_jax.generation import generate as generation
from transdiff_jax.generation.generate import generate_samples
from transdiff_jax.generation.request import SampleRequest
from transdiff_jax.generation.sample_files import RECORD, image_path, reference_path
from transdiff_jax.generation.sample_set import SampleSet
from transdiff_jax.images.png import encode_png, load_png
from transdiff_jax.model.transdiff import TransDiff
from transdiff_jax.parallel.lookahead import dispatched
from transdiff_jax.parallel.mesh import make_mesh
from transdiff_jax.storage.files import write_bytes
from transdiff_jax.training.state import create_state

CONFIG = tiny_config(mrar=True, sampling={"batch_size": 4, "steps": 2})
LABELS = (0, 0, 1, 1, 2, 2)
REQUEST = SampleRequest(LABELS, seed=3, all_images=True, npz=True)
FUSED = SampleRequest((1,) * 6, seed=3, fuse_with=2, semantic_similarity=True)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def weights(mesh):
    params = create_state(CONFIG, mesh).params
    # With a velocity of zero everywhere, every sample would be its own noise.
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), params)
    return Weights(CONFIG, params, "ema 0.9", 7, "digest")


def read_all(out, count):
    return np.stack([load_png(image_path(out, index), 1) for index in range(count)])


@pytest.fixture(scope="module")
def finished(weights, mesh, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    generate_samples(weights, REQUEST, out, mesh)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of a finished set, for changes."""
    return shutil.copytree(finished, tmp_path / "copy")


def contents(out):
    """All files except the record, which holds times."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != RECORD]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def with_sampling(weights, **fields):
    sampling = dataclasses.replace(CONFIG.sampling, **fields)
    return dataclasses.replace(weights, config=dataclasses.replace(CONFIG, sampling=sampling))


def test_layout(finished):
    assert set(contents(finished)) == {
        *(f"images/00000{i}.png" for i in range(6)),
        *(f"references/00000{i}_{k}.png" for i in range(6) for k in (1, 2, 3)),
        *("grid.png", "samples.npz", "SHA256SUMS", ".lock"),
    }
    grid = load_png(finished / "grid.png", 1)
    assert len(grid) == 3 * (32 + 2) + 2
    names = grid.shape[1] - (2 * (32 + 2) + 2)
    assert 10 < names < 30
    assert np.all([grid[top : top + 34, :names].min() < 100 for top in (0, 34, 68)]), "each row has a name"


def test_record(finished):
    record = json.loads((finished / RECORD).read_text())
    assert record["settings"]["labels"] == list(LABELS)
    assert record["settings"]["checkpoint_sha256"] == "digest"
    assert record["settings"]["seed"] == 3
    assert record["settings"]["sampling"]["steps"] == 2
    assert record["settings"]["dtype"] == "float32"
    assert make_config(record["config"]) == CONFIG
    assert record["images_made"] == 6
    assert record["images_per_second"] > 0
    (run,) = record["runs"]
    assert run["versions"]["jax"] == jax.__version__
    assert set(run["versions"]) == {"transdiff_jax", "jax", "jaxlib", "flax", "numpy", "scipy", "pillow"}
    assert (run["device_kind"], run["devices"], run["processes"], run["batch_size"]) == ("cpu", 1, 1, 4)
    assert run["attention"] == "xla"


def test_digests_are_those_that_sha256sum_prints(finished):
    comment, *lines = (finished / "SHA256SUMS").read_text().splitlines(keepends=True)
    assert comment.startswith("# settings ")
    assert len(lines) == 6 * 4 + 1
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((finished / name).read_bytes()).hexdigest() == digest
    samples = "".join(lines[: 6 * 4])
    assert "npz" not in samples
    (shard,) = json.loads((finished / RECORD).read_text())["shards"]
    assert shard == {"first": 0, "samples": 6, "sha256": hashlib.sha256(samples.encode()).hexdigest()}


def test_diversity_of_the_semantic_features_is_reported_on_request(copy, weights, mesh):
    assert "semantic_similarity" not in json.loads((copy / RECORD).read_text())
    asked = dataclasses.replace(REQUEST, semantic_similarity=True)
    similarity = generate_samples(weights, asked, copy, mesh)["semantic_similarity"]
    assert list(similarity) == ["0", "1", "2"]
    for label, value in similarity.items():
        model, null = TransDiff(CONFIG.model), jnp.zeros(1, bool)
        tokens = model.apply(
            {"params": weights.params}, jnp.array([int(label)]), null, method=TransDiff.encode
        ).features[0]
        cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in np.array(tokens)] for a in np.array(tokens)]
        assert value == pytest.approx(np.mean(cosines), abs=1e-5)


def test_fused_classes(weights, mesh, tmp_path, finished):
    generate_samples(weights, FUSED, tmp_path / "fused", mesh)
    generate_samples(weights, SampleRequest((1,) * 6, seed=3), tmp_path / "single", mesh)
    assert (read_all(tmp_path / "fused", 6) != read_all(tmp_path / "single", 6)).any(axis=(1, 2, 3)).all()
    record = json.loads((tmp_path / "fused" / RECORD).read_text())
    assert record["settings"]["fuse_with"] == 2
    assert record["settings"]["sampling"]["fuse_fraction"] == 0.5
    assert set(record["semantic_similarity"]) == {"1", "2", "fused"}
    with pytest.raises(UserError, match="other sampling"):
        half = with_sampling(weights, fuse_fraction=0.4)
        generate_samples(half, FUSED, tmp_path / "fused", mesh)
    # With a fraction of 0 everything is that of the first class, even the similarity.
    generate_samples(with_sampling(weights, fuse_fraction=0.0), FUSED, tmp_path / "none", mesh)
    difference = read_all(tmp_path / "none", 6).astype(int) - read_all(tmp_path / "single", 6)
    assert np.abs(difference).max() <= 1
    similarity = json.loads((tmp_path / "none" / RECORD).read_text())["semantic_similarity"]
    assert similarity["fused"] == pytest.approx(similarity["1"], abs=1e-5)


def test_rows_of_the_grid_have_the_names_of_classes(weights):
    named = dataclasses.replace(weights, class_names=("tench, Tinca tinca", *"bcdefgh", "i" * 99, "j"))
    plain, fused = SampleRequest((0,), seed=0), SampleRequest((0,), seed=0, fuse_with=8)
    assert generation._row_name(0, named, plain) == "tench"
    assert generation._row_name(0, named, fused) == "tench + " + "i" * 24
    assert generation._row_name(3, weights, plain) == "3"


def test_samples_that_are_not_finite_stop_the_job(weights, mesh, tmp_path):
    encoder = weights.params["encoder"]
    poisoned = encoder | {"class_embedding": encoder["class_embedding"].at[2].set(np.nan)}
    broken = dataclasses.replace(weights, params=weights.params | {"encoder": poisoned})
    with pytest.raises(UserError, match="sample 4 holds values that are not finite"):
        generate_samples(broken, SampleRequest(LABELS, seed=3), tmp_path, mesh)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {f"00000{i}.png" for i in range(4)}


def test_npz_holds_the_images(finished):
    with np.load(finished / "samples.npz") as arrays:
        assert list(arrays) == ["arr_0"]
        assert arrays["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["arr_0"], read_all(finished, 6))


def test_samples_differ(finished):
    images = read_all(finished, 6)
    assert len(np.unique(images.reshape(6, 64), axis=0)) == 6
    assert np.any(load_png(reference_path(finished, 0, 1), 1) != images[0])


def test_a_finished_set_is_left_alone(copy, weights, mesh):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    generate_samples(weights, REQUEST, copy, mesh)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    # A call that asks for less removes nothing.
    generate_samples(weights, dataclasses.replace(REQUEST, all_images=False, npz=False), copy, mesh)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_npz_and_earlier_images_can_be_asked_for_later(finished, weights, mesh, tmp_path):
    bare = dataclasses.replace(REQUEST, all_images=False, npz=False)
    generate_samples(weights, bare, tmp_path, mesh)
    assert set(contents(tmp_path)) == {*(f"images/00000{i}.png" for i in range(6)), "grid.png", "SHA256SUMS", ".lock"}
    assert generate_samples(weights, dataclasses.replace(bare, npz=True), tmp_path, mesh)["images_made"] == 6
    assert len(generate_samples(weights, REQUEST, tmp_path, mesh)["runs"]) == 2, (
        "the call for the npz alone sampled nothing"
    )
    assert contents(tmp_path) == contents(finished)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("written", [slow(0), 9, slow(23)])
def test_a_stopped_job_ends_with_the_same_bytes(finished, weights, mesh, tmp_path, monkeypatch, written):
    count = itertools.count()

    def stop(path, data):
        if path.suffix == ".png" and next(count) >= written:
            (path.parent / f".{path.name}.1-a.tmp").write_bytes(data[:9])  # as a kill would leave it
            raise Interrupted
        write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(image_writer, "write_bytes", stop)
        with pytest.raises(Interrupted):
            generate_samples(weights, REQUEST, tmp_path, mesh)
    assert written or not list((tmp_path / "images").glob("*.png"))
    generate_samples(weights, REQUEST, tmp_path, mesh)
    assert contents(tmp_path) == contents(finished)


DAMAGES = {
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "another image": lambda path: path.write_bytes(encode_png(np.zeros((8, 8, 1), np.uint8))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_made_again(finished, copy, weights, mesh, damage):
    DAMAGES[damage](copy / "samples.npz")
    assert generate_samples(weights, REQUEST, copy, mesh)["images_made"] == 6, "the images are left alone"
    assert contents(copy) == contents(finished)
    for name in ("images/000004.png", "references/000001_2.png", "samples.npz"):
        DAMAGES[damage](copy / name)
    record = generate_samples(weights, REQUEST, copy, mesh)
    assert record["images_made"] == 2
    assert contents(copy) == contents(finished)
    assert record["shards"] == json.loads((finished / RECORD).read_text())["shards"]


def test_damage_in_an_unfinished_set_is_found(finished, copy, weights, mesh):
    # As after a kill, there is no list of digests, but a journal whose last line is cut short.
    (copy / "progress").mkdir()
    (copy / "progress" / "a").write_text((copy / "SHA256SUMS").read_text()[:-30])
    (copy / "SHA256SUMS").unlink()
    record = json.loads((copy / RECORD).read_text())
    del record["shards"]
    (copy / RECORD).write_text(json.dumps(record))
    DAMAGES["changed"](copy / "images" / "000002.png")
    DAMAGES["another image"](copy / "images" / "000003.png")
    assert generate_samples(weights, REQUEST, copy, mesh)["images_made"] == 2
    assert contents(copy) == contents(finished)


@pytest.mark.parametrize(("devices", "batch_size"), [slow(1, 2), (2, 4), slow(8, 16)])
def test_other_batch_sizes_and_devices_go_on(finished, copy, weights, devices, batch_size):
    (copy / "images" / "000004.png").unlink()
    (copy / "references" / "000001_3.png").unlink()
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    weights = dataclasses.replace(with_sampling(weights, batch_size=batch_size), params=jax.device_get(weights.params))
    record = generate_samples(weights, REQUEST, copy, mesh)
    assert record["images_made"] == 2
    assert record["runs"][-1]["devices"] == devices
    assert set(contents(copy)) == set(contents(finished))
    difference = read_all(copy, 6).astype(int) - read_all(finished, 6).astype(int)
    assert np.abs(difference).max() <= 1
    with np.load(copy / "samples.npz") as arrays:
        np.testing.assert_array_equal(arrays["arr_0"], read_all(copy, 6))


def test_shards_do_not_depend_on_batches(weights, mesh, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_files, "SHARD_SIZE", 4)
    record = generate_samples(with_sampling(weights, batch_size=3), SampleRequest(LABELS, seed=3), tmp_path, mesh)
    assert [(shard["first"], shard["samples"]) for shard in record["shards"]] == [(0, 4), (4, 2)]
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines(keepends=True)[1:]
    assert [line.split()[1] for line in lines] == [f"images/00000{i}.png" for i in range(6)]
    assert [shard["sha256"] for shard in record["shards"]] == [
        hashlib.sha256("".join(part).encode()).hexdigest() for part in (lines[:4], lines[4:])
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, slow(errno.EFBIG), slow(errno.EACCES)])
def test_a_full_disk_ends_in_one_line_and_loses_nothing(finished, weights, mesh, tmp_path, monkeypatch, code):
    request, count = SampleRequest(LABELS, seed=3), itertools.count()

    def fail(path, data):
        if path.suffix == ".png" and next(count) > 2:
            raise OSError(code, os.strerror(code))
        write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(image_writer, "write_bytes", fail)
        with pytest.raises(UserError, match=rf"00000\d.*png could not be written \({os.strerror(code)}\): free"):
            generate_samples(weights, request, tmp_path, mesh)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0*.png")}
    assert len(kept) == 3
    assert generate_samples(weights, request, tmp_path, mesh)["images_made"] == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    np.testing.assert_array_equal(read_all(tmp_path, 6), read_all(finished, 6))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("samples.npz", r"samples.npz could not be written \(Is a directory\)"),
        ("grid.png", r"grid.png could not be written \(Is a directory\)"),
        ("SHA256SUMS", r"out=.* cannot be used: .*Is a directory: .*SHA256SUMS"),
    ],
)
def test_what_cannot_be_written_at_the_end_is_named(finished, weights, mesh, tmp_path, name, message):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=message):
        generate_samples(weights, REQUEST, tmp_path, mesh)
    (tmp_path / name).rmdir()
    generate_samples(weights, REQUEST, tmp_path, mesh)
    assert contents(tmp_path) == contents(finished)


def test_a_second_job_in_one_folder_is_refused(weights, mesh, tmp_path, monkeypatch):
    compiled, refused = generation._sample_missing, []

    def disturbed(*arguments):
        with pytest.raises(UserError, match="is in use by another process; wait for it to end") as caught:
            generate_samples(weights, REQUEST, tmp_path, mesh)
        refused.append(caught.value)
        return compiled(*arguments)

    monkeypatch.setattr(generation, "_sample_missing", disturbed)
    assert generate_samples(weights, REQUEST, tmp_path, mesh)["images_made"]
    assert len(refused) == 1
    monkeypatch.undo()
    generate_samples(weights, REQUEST, tmp_path, mesh)  # the folder is free again


def test_images_that_vanish_while_a_job_runs_are_named(weights, mesh, tmp_path, monkeypatch):
    compiled = generation._sample_missing

    def disturbed(*arguments):
        figures = compiled(*arguments)
        for journal in (tmp_path / "progress").iterdir():
            journal.unlink()
        return figures

    monkeypatch.setattr(generation, "_sample_missing", disturbed)
    with pytest.raises(UserError, match="is missing: somebody removed it while the job ran"):
        generate_samples(weights, REQUEST, tmp_path, mesh)


def test_the_next_batch_is_dispatched_before_one_is_written():
    events = []

    def run(first):
        events.append(("run", first))
        return first

    for first, _ in dispatched([0, 4, 8], run):
        events.append(("write", first))
    assert events == [("run", 0), ("run", 4), ("write", 0), ("run", 8), ("write", 4), ("write", 8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "other seed"),
        ({"labels": (0, 1)}, "other labels"),
    ],
)
def test_other_settings_do_not_mix(finished, weights, mesh, change, message):
    request = dataclasses.replace(SampleRequest(LABELS, seed=3), **change)
    with pytest.raises(UserError, match=message):
        generate_samples(weights, request, finished, mesh)
    with pytest.raises(UserError, match="other checkpoint_sha256"):
        generate_samples(dataclasses.replace(weights, digest="other"), SampleRequest(LABELS, seed=3), finished, mesh)


@pytest.mark.parametrize("labels", [(10,), (-1,), (0, 99)])
def test_labels_out_of_range(weights, mesh, tmp_path, labels):
    with pytest.raises(UserError, match=r"class (10|-1|99) does not exist; this model has classes 0 to 9"):
        generate_samples(weights, SampleRequest(labels, seed=0), tmp_path, mesh)


def test_folders_that_cannot_be_used(weights, mesh, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^out=.*file cannot be used"):
        generate_samples(weights, SampleRequest((0,), seed=0), tmp_path / "file", mesh)
    (tmp_path / "full" / "images").mkdir(parents=True)
    (tmp_path / "full" / "images" / "cat.png").write_text("")
    with pytest.raises(UserError, match=r"holds images but no samples.json"):
        generate_samples(weights, SampleRequest((0,), seed=0), tmp_path / "full", mesh)


@pytest.fixture
def shards_of_four(monkeypatch):
    for module in (sample_files, samples_npz):
        monkeypatch.setattr(module, "SHARD_SIZE", 4)


def unpacked(files):
    """Files of a set without lock and digests, those in archives by their own names."""
    plain = {name: data for name, data in files.items() if name not in (".lock", "SHA256SUMS")}
    for name in [name for name in plain if name.endswith(".zip")]:
        del plain[name]
        with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            plain |= {entry: archive.read(entry) for entry in archive.namelist()}
    return plain


def test_archives_hold_the_same_files_and_all_readers_take_them(finished, weights, mesh, tmp_path, shards_of_four):
    record = generate_samples(weights, REQUEST, tmp_path, mesh, image_format="zip")
    names = {"images/000000.zip", "images/000004.zip", "grid.png", "samples.npz", "SHA256SUMS", ".lock"}
    files, plain = contents(tmp_path), contents(finished)
    assert files.keys() == names
    assert unpacked(files) == unpacked(plain)
    assert [shard["samples"] for shard in record["shards"]] == [4, 2]
    for line in (tmp_path / "SHA256SUMS").read_text().splitlines()[1:]:
        digest, name = line.split()
        assert hashlib.sha256(files[name]).hexdigest() == digest
    assert generate_samples(weights, REQUEST, tmp_path, mesh, image_format="zip")["images_made"] == 6, "left alone"
    assert contents(tmp_path) == files
    batches = [batch[np.arange(len(batch))] for batch in open_images(tmp_path, "samples").batches(4)]
    np.testing.assert_array_equal(np.concatenate(batches), np.repeat(read_all(finished, 6), 3, axis=-1))
    DAMAGES["changed"](tmp_path / "images" / "000004.zip")
    with pytest.raises(UserError, match=r"000004.zip has changed since transdiff sample wrote it; run the same"):
        list(open_images(tmp_path, "samples").batches(4))[1][np.arange(2)]
    assert generate_samples(weights, REQUEST, tmp_path, mesh, image_format="zip")["images_made"] == 2
    assert contents(tmp_path) == files
    with pytest.raises(UserError, match="holds samples in the format zip: give --format=zip"):
        generate_samples(weights, REQUEST, tmp_path, mesh)
    with pytest.raises(UserError, match="holds samples in the format png: give --format=png"):
        generate_samples(weights, REQUEST, shutil.copytree(finished, tmp_path / "png"), mesh, image_format="zip")


def test_a_job_that_has_lost_its_set_ends_in_one_line(weights, mesh, bucket, monkeypatch, shards_of_four):
    def lost(samples, begin=SampleSet.begin):
        begin(samples, {})
        (bucket / ".lock").write_bytes(b"{}")
        samples._lock._lost = True  # as its heartbeat finds

    monkeypatch.setattr(SampleSet, "begin", lambda samples, figures: lost(samples))
    with pytest.raises(UserError, match=r"^gs://.* was taken over by another process"):
        generate_samples(weights, REQUEST, bucket, mesh)
    assert not (bucket / "images").is_dir()
    assert (bucket / ".lock").read_bytes() == b"{}"


def test_a_stopped_job_in_a_bucket_goes_on(finished, weights, mesh, bucket, monkeypatch, shards_of_four):
    def stop(path, data):
        if path.name == "000004.zip":
            raise Interrupted
        write_bytes(path, data)

    with pytest.raises(UserError, match="a bucket takes a request for each file: give --format=zip"):
        generate_samples(weights, REQUEST, bucket, mesh, image_format="png")
    with monkeypatch.context() as patch:
        patch.setattr(archive_writer, "write_bytes", stop)
        with pytest.raises(Interrupted):
            generate_samples(weights, REQUEST, bucket, mesh)
    assert generate_samples(weights, REQUEST, bucket, mesh)["images_made"] == 2
    files = contents(bucket)
    assert files.keys() == {"images/000000.zip", "images/000004.zip", "grid.png", "samples.npz", "SHA256SUMS"}
    assert unpacked(files) == unpacked(contents(finished))
    assert open_images(bucket, "samples").record["settings"]["labels"] == list(LABELS)
