import json
import os

import jax
import numpy as np
import pytest
from absl import flags
from jax._src import xla_bridge

from tests.support.configs import tiny_config
from tests.support.photos import crop, encoded, write_folder
from transdiff_jax.data import pipeline
from transdiff_jax.data.pipeline import TrainingData
from transdiff_jax.data.sources.folder import FolderSource
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.data.unreadable import read_members
from transdiff_jax.errors import UserError

# There are 8 + 8 records; in the order of the source, 2, 3 and 7 are of the first class, and 12 of the second.
BAD = {2: "china/002.JPEG", 3: "china/003.png", 7: "china/007.png", 12: "flower/004.JPEG"}
INSTEAD = {2: 4, 3: 4, 7: 0, 12: 13}


@pytest.fixture
def folder(tmp_path):
    root = write_folder(tmp_path / "photos")
    for number, name in enumerate(BAD.values()):
        (root / name).write_bytes(b"" if number % 2 else (root / name).read_bytes()[:-100])
    return root


@pytest.fixture
def photo_config(folder):
    def make(mrar=False, data=None, **model):
        data = {
            "source": f"folder:{folder}",
            "image_channels": 3,
            "crop": "random",
            "max_unreadable": 0.9,
            **(data or {}),
        }
        return tiny_config(mrar, data=data, model={"latent_channels": 12, "num_classes": 2, **model})

    return make


def batches(config, workdir, count=6):
    data = TrainingData(config, workdir)
    made = [next(data) for _ in range(count)]
    data.close()
    return made


def report(workdir):
    return json.loads((workdir / "unreadable_records.json").read_text())


def test_the_next_readable_record_of_the_class_takes_the_place(photo_config):
    source = open_source(photo_config().data)
    for index in range(16):
        (record,), found, replaced = read_members(source, np.array([index]))
        expected = INSTEAD.get(index, index)
        assert (found.tolist(), replaced.tolist()) == ([expected], [index if index in BAD else -1])
        assert record["label"] == (index >= 8)
        np.testing.assert_array_equal(record["image"], source[expected]["image"])


def test_a_row_holds_no_record_twice(photo_config):
    source = open_source(photo_config().data)
    _, found, replaced = read_members(source, np.array([2, 4, 7, 3]))
    assert found.tolist() == [5, 4, 0, 6]
    assert replaced.tolist() == [2, -1, 7, 3]


def test_a_class_without_a_readable_image(photo_config, folder):
    for path in (folder / "flower").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"class 1 \(flower\) .* has no other image that can be decoded .* flower/002"):
        read_members(open_source(photo_config().data), np.array([10]))


@pytest.mark.parametrize("mrar", [False, True], ids=["one_step", "mrar"])
def test_batches_are_whole_and_the_report_names_what_failed(photo_config, tmp_path, mrar, caplog):
    config = photo_config(mrar)
    made = batches(config, tmp_path)
    assert set(made[0]) == {"image", "label", "index"}
    indices = np.concatenate([batch["index"] for batch in made])
    assert not set(indices.ravel().tolist()) & set(BAD)
    labels = np.concatenate([batch["label"] for batch in made])
    np.testing.assert_array_equal(indices >= 8, np.repeat(labels[:, None] == 1, indices.shape[1], axis=1))
    written = report(tmp_path)
    assert {entry["index"]: entry["id"] for entry in written["unreadable"]} == BAD
    assert {entry["reason"].split()[0] for entry in written["unreadable"]} >= {"the"}
    assert all(
        caplog.text.count(f"record {name} ") == 1 for name in BAD.values()
    )  # each once, although every epoch meets it


def test_replacements_do_not_depend_on_threads_or_order(photo_config, tmp_path):
    one, many = (
        batches(photo_config(True, data={"read_threads": threads, "flip": True}), tmp_path) for threads in (1, 5)
    )
    jax.tree.map(np.testing.assert_array_equal, many, one)


def test_too_many_stop_the_run_and_a_resumed_one_at_once(photo_config, tmp_path):
    config = photo_config(data={"max_unreadable": 0.2})  # 3 of 16 are below the limit, 4 above
    with pytest.raises(UserError) as caught:
        batches(config, tmp_path)
    message = str(caught.value)
    assert message.startswith("4 of 16 records (25.00%) of config.data.source='folder:")
    assert "more than config.data.max_unreadable=0.2: " in message
    assert str(tmp_path / "unreadable_records*.json") in message
    assert sum(name in message for name in BAD.values()) == 3
    assert "\n" not in message
    assert len(report(tmp_path)["unreadable"]) == 4
    with pytest.raises(UserError, match="4 of 16 records"):
        TrainingData(config, tmp_path)
    TrainingData(photo_config(), tmp_path).close()


def test_the_count_goes_on_after_a_resume(photo_config, tmp_path, caplog):
    batches(photo_config(), tmp_path)
    before = report(tmp_path)
    caplog.clear()
    with caplog.at_level("INFO"):
        batches(photo_config(), tmp_path)
    assert report(tmp_path) == before
    assert "4 unreadable record(s) in" in caplog.text
    assert "cannot be decoded" not in caplog.text


def test_a_report_of_other_data_is_not_counted(photo_config, tmp_path, folder, caplog):
    batches(photo_config(), tmp_path)
    (folder / BAD[12]).unlink()
    batches(photo_config(), tmp_path)
    assert "is of other data" in caplog.text
    assert report(tmp_path)["records"] == 15
    assert len(report(tmp_path)["unreadable"]) == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"unreadable": 3}', '{"unreadable": [{"index": "x"}]}'])
def test_a_report_that_is_none(photo_config, tmp_path, text):
    (tmp_path / "unreadable_records.json").write_text(text)
    with pytest.raises(
        UserError, match=r"unreadable_records.json is not a report of unreadable records: delete or repair it"
    ):
        TrainingData(photo_config(), tmp_path)


def alone(monkeypatch):
    """Asks no second process, because there is none."""
    monkeypatch.setattr(pipeline, "check_same_records", lambda *_: None)
    monkeypatch.setattr(pipeline, "open_source", lambda data, _: open_source(data))


def test_each_process_has_a_report_of_its_own(photo_config, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    alone(monkeypatch)
    found = set()
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        batches(photo_config(), tmp_path)
        written = json.loads((tmp_path / f"unreadable_records.{process}.json").read_text())
        found |= {entry["index"] for entry in written["unreadable"]}
    assert found == set(BAD)


def test_the_limit_is_on_the_reports_of_all_processes(photo_config, tmp_path, monkeypatch):
    assert {index % 2 for index in BAD} == {0, 1}
    batches(photo_config(), tmp_path)
    entries = report(tmp_path)
    for process in range(2):
        own = [entry for entry in entries["unreadable"] if entry["index"] % 2 == process]
        (tmp_path / f"unreadable_records.{process}.json").write_text(json.dumps(entries | {"unreadable": own}))
    (tmp_path / "unreadable_records.json").unlink()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    alone(monkeypatch)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        TrainingData(photo_config(data={"max_unreadable": 0.25}), tmp_path).close()
        with pytest.raises(UserError, match="4 of 16 records"):
            TrainingData(photo_config(data={"max_unreadable": 0.2}), tmp_path)


@pytest.fixture
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["tests"])


def test_worker_processes_make_the_same_batches_and_the_same_report(photo_config, tmp_path, parsed_flags):
    for name in ("threads", "workers"):
        (tmp_path / name).mkdir()
    alone = batches(photo_config(True, data={"flip": True}), tmp_path / "threads")
    made = batches(photo_config(True, data={"flip": True, "workers": 2}), tmp_path / "workers")
    jax.tree.map(np.testing.assert_array_equal, made, alone)
    assert report(tmp_path / "workers") == report(tmp_path / "threads")


def test_state_moves_between_worker_counts(photo_config, tmp_path, parsed_flags):
    straight = batches(photo_config(), tmp_path, 5)
    data = TrainingData(photo_config(data={"workers": 1}), tmp_path)
    data.set_state({"global_next_index": 16})
    made = [next(data) for _ in range(2)]
    state = data.get_state()
    data.close()
    jax.tree.map(np.testing.assert_array_equal, made, straight[2:4])
    resumed = TrainingData(photo_config(), tmp_path)
    resumed.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, next(resumed), straight[4])
    resumed.close()


def test_an_error_of_a_worker_is_the_one_of_a_thread(photo_config, tmp_path, folder, parsed_flags):
    # Only the first record is read before training.
    messages = []
    for workers in (0, 1):
        config = photo_config(data={"crop": "none", "image_size": 20, "workers": workers}, latent_size=10)
        for path in folder.rglob("*.*"):
            path.write_bytes(b"")
        (folder / "china/000.JPEG").write_bytes(encoded(crop("china", 0, 20, 20)))
        (folder / "flower/000.JPEG").write_bytes(encoded(crop("china", 0, 20, 24)))
        with pytest.raises(UserError, match=r"does not fit record flower/000.JPEG .* an image of 24x20") as caught:
            batches(config, tmp_path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


class WatchedSource(FolderSource):
    """A source that fails in another process if JAX has a backend there."""

    def __init__(self, folder):
        super().__init__(folder, 3)
        self.maker = os.getpid()

    def __getitem__(self, index):
        if os.getpid() != self.maker and xla_bridge.backends_are_initialized():
            raise UserError("a worker process has a backend")
        return super().__getitem__(index)


def test_a_worker_process_takes_no_device(photo_config, tmp_path, folder, parsed_flags, monkeypatch):
    # On a machine with an accelerator, a worker would take its memory, or fail because the training process holds it.
    monkeypatch.setattr(pipeline, "open_source", lambda *_: WatchedSource(folder))
    batches(photo_config(data={"workers": 1}), tmp_path, 2)
