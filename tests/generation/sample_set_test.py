import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from tests.support.sample_sets import FIGURES, write_samples
from transdiff_jax.errors import UserError
from transdiff_jax.generation.finished_set import read_finished
from transdiff_jax.generation.sample_files import RECORD, SUMS
from transdiff_jax.storage.files import write_json

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 3)).astype(np.uint8)
SETTINGS = {"labels": [0, 0, 1, 1, 2, 2, 3], "seed": 4, "sampling": {"steps": 2}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_samples(folder, IMAGES, SETTINGS, similarity=True)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def again(folder, **options):
    """The same command: how many samples were missing."""
    return write_samples(folder, IMAGES, SETTINGS, **options)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(**parts):
    """Replaces parts of the record; None removes one."""

    def damage(folder):
        record = json.loads((folder / RECORD).read_text()) | parts
        write_json(folder / RECORD, {name: value for name, value in record.items() if value is not ...})

    return damage


def text(content):
    return lambda folder: (folder / RECORD).write_text(content)


def with_settings(**fields):
    return changed(settings={name: value for name, value in (SETTINGS | fields).items() if value is not ...})


WHOLE = {
    "empty": text(""),
    "a list": text("[]"),
    "a number": text("3"),
    "null": text("null"),
    "deep lists": text("[" * 100_000),
    "deep objects": text('{"a":' * 900 + "1" + "}" * 900),
    "not UTF-8": lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe{}"),
    "truncated": lambda folder: os.truncate(folder / RECORD, 300),
    "absent": lambda folder: (folder / RECORD).unlink(),
}
SETTINGS_DAMAGE = {
    **{f"settings {value!r}": changed(settings=value) for value in (..., None, 3, [], "a", {}, {"labels": 3})},
    "another seed": with_settings(seed=5),
    "a seed of another type": with_settings(seed="4"),
    "no seed": with_settings(seed=...),
    "other labels": with_settings(labels=[0, 0, 1, 1, 2, 2, 4]),
    "deep labels": with_settings(labels=json.loads("[" * 200 + "]" * 200)),
}
SHARD = {"first": 0, "samples": 7, "sha256": "0" * 64}
PARTS = {
    **{f"shards {value!r}": changed(shards=value) for value in (..., None, 3, [], "a", {}, [3], [{}], [None], [SHARD])},
    **{f"config {value!r}": changed(config=value) for value in (..., None, 3, [], {}, {"model": 3}, {"a": 1})},
    **{f"runs {value!r}": changed(runs=value) for value in (None, 3, "a", {}, [3])},
    **{f"seconds {value!r}": changed(seconds=value) for value in ("a", [], 10**400)},
    "images_per_second": changed(images_per_second={}),
    "no figures": changed(**dict.fromkeys(FIGURES, ...)),
    "semantic_similarity": changed(semantic_similarity={"0": "high"}),
}


@pytest.mark.parametrize("name", [*WHOLE, *SETTINGS_DAMAGE, *PARTS])
def test_the_command_that_made_a_set_mends_its_record(finished, copy, name):
    damage = (WHOLE | SETTINGS_DAMAGE | PARTS)[name]
    damage(copy)
    try:
        read_finished(copy)
    except UserError as error:
        assert str(error).endswith("run the same transdiff sample command again, which mends it")
        assert "\n" not in str(error)
    else:
        assert name.split()[0] in ("runs", "seconds", "images_per_second", "no", "semantic_similarity"), "none reads it"
    assert again(copy, similarity=True) == 0, "nothing is sampled"
    before, after = (json.loads((folder / RECORD).read_text()) for folder in (finished, copy))
    # What nobody can know any more is the machine of earlier calls.
    lost = {"runs"} if name in (*WHOLE, "deep labels") or name.startswith("runs") else set()
    assert {key: before[key] for key in before.keys() - lost} == {key: after[key] for key in before.keys() - lost}
    assert contents(copy).keys() == contents(finished).keys()
    assert {**contents(copy), RECORD: b""} == {**contents(finished), RECORD: b""}
    read_finished(copy)


@pytest.mark.parametrize("name", [*WHOLE, *SETTINGS_DAMAGE])
def test_another_command_does_not_take_a_damaged_set(copy, name):
    (WHOLE | SETTINGS_DAMAGE)[name](copy)
    before = contents(copy)
    line = r"samples\.json .*, and SHA256SUMS notes other settings or none: give the command that made the samples, or "
    line = r"holds images but no samples\.json; choose an empty" if name == "absent" else line + r"delete .*copy, and"
    with pytest.raises(UserError, match=line) as caught:
        write_samples(copy, IMAGES, SETTINGS | {"seed": 9})
    assert "\n" not in str(caught.value)
    assert contents(copy) == before


def as_version_0_1(folder):
    """The settings were noted in the record alone."""
    lines = (folder / SUMS).read_text().splitlines(keepends=True)
    (folder / SUMS).write_text("".join(line for line in lines if not line.startswith("#")))


def test_damage_in_a_set_of_version_0_1(finished, copy):
    as_version_0_1(copy)
    before = contents(copy)
    assert again(copy) == 0
    assert contents(copy) == before, "a set without damage is left alone"
    PARTS["shards None"](copy)
    assert again(copy) == 0
    assert contents(copy) == contents(finished), "the settings are noted from now on"
    record = (copy / RECORD).read_text()
    for name in (name for name in (*WHOLE, "settings None", "settings {}", "no seed") if name != "absent"):
        as_version_0_1(copy)
        (copy / RECORD).write_text(record)
        (WHOLE | SETTINGS_DAMAGE)[name](copy)
        with pytest.raises(
            UserError, match=r"samples\.json .* or none: give the command that made the samples, or del"
        ):
            again(copy)
    shutil.rmtree(copy)
    assert again(copy) == 7, "which the line says"


def test_other_settings_are_not_called_damage(copy):
    with pytest.raises(UserError, match=r"holds samples with other labels, seed; choose another folder$"):
        write_samples(copy, IMAGES, SETTINGS | {"seed": 9, "labels": [1] * 7})


def test_sets_of_version_0_1_have_their_dtype_in_the_configuration_alone(copy):
    as_version_0_1(copy)
    before = contents(copy)
    assert write_samples(copy, IMAGES, SETTINGS | {"dtype": "float32"}) == 0
    assert contents(copy) == before
    line = r"holds samples with other dtype; choose another folder, or the dtype float32$"
    with pytest.raises(UserError, match=line):
        write_samples(copy, IMAGES, SETTINGS | {"dtype": "bfloat16"})


def test_a_damaged_record_without_samples_is_a_new_set(tmp_path):
    write_samples(tmp_path, IMAGES, SETTINGS, until="sampling")
    for content in ("", "[]"):
        (tmp_path / RECORD).write_text(content)
        (tmp_path / SUMS).unlink()
        write_samples(tmp_path, IMAGES, SETTINGS | {"seed": 9}, until="sampling")
    assert write_samples(tmp_path, IMAGES, SETTINGS | {"seed": 9}) == 7


SUMS_DAMAGE = {
    "empty": (lambda lines: [], 7),
    "not text": (lambda lines: ["\x00\udcff" * 99], 7),
    "no comment": (lambda lines: lines[1:], 0),
    "another comment": (lambda lines: [f"# settings {'0' * 64}\n", *lines[1:]], 0),
    "a digest": (lambda lines: [line.replace(line[:3], "fff") if "000002.png" in line else line for line in lines], 1),
    "a name": (lambda lines: [line.replace("images/000002", "images/00000x") for line in lines], 1),
    "a line is cut": (lambda lines: [*lines[:3], lines[3][:40]], 6),
    "other files": (
        lambda lines: [*lines, *(f"{'0' * 64}  {name}\n" for name in ("/dev/zero", "../a", "grid.png"))],
        0,
    ),
    "numbers": (
        lambda lines: [*lines, f"{'0' * 64}  images/{'9' * 5000}.png\n", f"{'0' * 64}  images/٤٥٤٥٤٥.png\n"],
        0,
    ),
    "lines twice": (lambda lines: [*lines, *lines[1:]], 0),
}


@pytest.mark.parametrize("name", SUMS_DAMAGE)
def test_damage_in_the_list_of_digests(finished, copy, name):
    change, missing = SUMS_DAMAGE[name]
    lines = change((copy / SUMS).read_text().splitlines(keepends=True))
    (copy / SUMS).write_text("".join(lines), errors="surrogateescape")
    try:
        read_finished(copy)
    except UserError as error:
        assert str(error).endswith("run the same transdiff sample command again, which mends it")
    else:
        assert not missing
    assert again(copy) == missing
    read_finished(copy)
    if missing:
        assert (copy / SUMS).read_bytes() == (finished / SUMS).read_bytes()
        assert again(copy) == 0


def test_no_device_is_read_as_an_image(copy):
    (copy / "images" / "000002.png").unlink()
    (copy / "images" / "000002.png").symlink_to("/dev/zero")
    assert again(copy, until="sampling") == 1


def test_the_list_is_one_that_sha256sum_checks(finished):
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=finished, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert len(checked.stdout.splitlines()) == 7 * 2 + 1


@pytest.mark.parametrize("journal", ["there", "gone"])
def test_a_job_killed_before_its_record_leaves_the_same_record(finished, tmp_path, journal):
    write_samples(tmp_path, IMAGES, SETTINGS, until="finish")
    assert "seconds" not in json.loads((tmp_path / RECORD).read_text())
    os.utime(tmp_path / "progress" / "figures.json", (100, 100))
    os.utime(tmp_path / "progress" / "0", (102, 102))
    if journal == "gone":  # the last thing but the record
        (tmp_path / SUMS).write_bytes((finished / SUMS).read_bytes())
        (tmp_path / "progress" / "0").unlink()
        os.utime(tmp_path / SUMS, (102, 102))
    again(tmp_path, until="finish")  # and once more
    assert again(tmp_path, similarity=True) == 0
    expected, found = (json.loads((folder / RECORD).read_text()) for folder in (finished, tmp_path))
    assert found == expected | {"seconds": 2.5, "compile_seconds": 0.5, "images_per_second": 3.5, "images_made": 7}
    assert contents(tmp_path).keys() == contents(finished).keys()


def test_figures_are_those_of_the_last_call_that_sampled(copy):
    (copy / "images" / "000002.png").unlink()
    assert again(copy, until="finish") == 1
    os.utime(copy / "progress" / "figures.json", (100, 100))
    os.utime(copy / "progress" / "0", (104, 104))
    assert again(copy) == 0
    record = json.loads((copy / RECORD).read_text())
    assert (record["images_made"], record["seconds"], record["images_per_second"]) == (1, 4.5, 0.25)
    assert record["semantic_similarity"] == {"0": 0.5}, "it does not depend on the call"
    assert len(record["runs"]) == 2


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "{}", '{"images_made": "a", "compile_seconds": 1}', None])
def test_damage_in_what_is_known_of_the_speed(tmp_path, content):
    write_samples(tmp_path, IMAGES, SETTINGS, until="finish")
    figures = tmp_path / "progress" / "figures.json"
    figures.unlink() if content is None else figures.write_text(content)
    assert again(tmp_path) == 0
    read_finished(tmp_path)


def test_similarity_comes_later_without_sampling(tmp_path):
    again(tmp_path, npz=False)
    record = json.loads((tmp_path / RECORD).read_text())
    assert "semantic_similarity" not in record
    assert again(tmp_path, npz=False, similarity=True) == 0
    assert json.loads((tmp_path / RECORD).read_text()) == record | {"semantic_similarity": {"0": 0.5}}
