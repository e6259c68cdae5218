import json
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from transdiff_jax.config import make_config
from transdiff_jax.data import pipeline
from transdiff_jax.data.pipeline import TrainingData
from transdiff_jax.data.pipeline import training_rows as rows_of
from transdiff_jax.data.shares import WHOLE, Shares
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.errors import UserError

TEST = {"split": "test"}  # 360 records make a short epoch
MRAR = pytest.mark.parametrize("mrar", [False, True], ids=["one_step", "mrar"])


def training_rows(config):
    return rows_of(config, open_source(config.data))


def read(config, count, state=None, share=WHOLE):
    """The next `count` batches, and the state after them."""
    with tempfile.TemporaryDirectory() as workdir:
        return read_in(Path(workdir), config, count, state, share)


def read_in(workdir, config, count, state=None, share=WHOLE):
    data = TrainingData(config, workdir, share)
    if state is not None:
        data.set_state(state)
    batches = [next(data) for _ in range(count)]
    state = data.get_state()
    data.close()
    return batches, state


def assert_equal(made, expected):
    assert len(made) == len(expected)
    for a, b in zip(made, expected, strict=True):
        assert set(a) == set(b) >= {"image", "label", "index"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@MRAR
def test_batches_hold_the_records_that_they_name(digits_config, mrar):
    config = digits_config(mrar, data=TEST)
    source = open_source(config.data)
    batch = read(config, 1)[0][0]
    images = config.model.num_images
    assert (batch["image"].shape, batch["image"].dtype) == ((8, images, 8, 8, 1), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((8,), np.int32)
    assert (batch["index"].shape, batch["index"].dtype) == ((8, images), np.int64)
    for row in range(8):
        for image, index in zip(batch["image"][row], batch["index"][row], strict=True):
            record = source[int(index)]
            np.testing.assert_array_equal(image, record["image"])
            assert record["label"] == batch["label"][row]


@MRAR
def test_batches_are_the_rows_in_order(digits_config, mrar):
    config = digits_config(mrar, data=TEST)
    rows = training_rows(config)
    batches, _ = read(config, 3)
    made = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(made, [rows[position]["index"] for position in range(24)])


@MRAR
def test_an_epoch_is_every_record_once_and_each_epoch_is_another(digits_config, mrar):
    rows = training_rows(digits_config(mrar, data=TEST))
    epochs = [[rows[epoch * 360 + position]["index"] for position in range(360)] for epoch in range(2)]
    anchors = [[int(index[-1]) for index in epoch] for epoch in epochs]
    for epoch in anchors:
        assert sorted(epoch) == list(range(360))
        assert epoch != sorted(epoch)
    assert anchors[0] != anchors[1]
    if mrar:
        first, second = ({int(index[-1]): index[:-1].tolist() for index in epoch} for epoch in epochs)
        assert np.mean([first[anchor] != second[anchor] for anchor in range(360)]) > 0.9


def test_rows_are_random_access_and_follow_the_seed(digits_config):
    rows, again = (training_rows(digits_config(True, data=TEST | {"flip": True})) for _ in range(2))
    for position in (500, 3, 100_000):
        assert_equal([rows[position]], [again[position]])
    config = digits_config(True, data=TEST).to_dict() | {"seed": 1}
    other = training_rows(make_config(config))
    assert [rows[k]["index"].tolist() for k in range(8)] != [other[k]["index"].tolist() for k in range(8)]


def test_reading_threads_do_not_matter(digits_config):
    one, _ = read(digits_config(True, data=TEST | {"flip": True, "read_threads": 1}), 50)
    many, _ = read(digits_config(True, data=TEST | {"flip": True, "read_threads": 7}), 50)
    assert_equal(many, one)


def test_threads_share_a_batch_and_prepare_at_most_one_more(digits_config, tmp_path, monkeypatch):
    made, threads, real = [], 4, pipeline.transform

    def slow(*arguments):
        made.append(threading.current_thread())
        time.sleep(0.01)
        return real(*arguments)

    monkeypatch.setattr(pipeline, "transform", slow)
    config = digits_config(data=TEST | {"read_threads": threads}, train={"batch_size": 32})
    data = TrainingData(config, tmp_path)
    made.clear()  # one row is read when the data is opened
    next(data)
    assert len(set(made[:32])) == threads
    time.sleep(1)  # in which 400 rows could be made
    assert 32 < len(made) <= 64
    data.close()


def test_flips_differ_between_rows_and_epochs(digits_config):
    config = digits_config(data=TEST | {"flip": True})
    source, rows = open_source(config.data), training_rows(config)
    flipped = {0: {}, 1: {}}
    for position in range(720):
        row = rows[position]
        index = int(row["index"][0])
        flipped[position // 360][index] = not np.array_equal(row["image"][0], source[index]["image"])
    assert all(100 < sum(epoch.values()) < 260 for epoch in flipped.values())
    assert 100 < sum(flipped[0][index] != flipped[1][index] for index in range(360)) < 260


@pytest.mark.parametrize("seen", [0, 1, 44, 46])  # 45 batches are an epoch
def test_resume_is_exact(digits_config, seen):
    config = digits_config(True, data=TEST | {"flip": True})
    straight, end = read(config, seen + 3)
    _, state = read(config, seen)
    resumed, resumed_end = read(config, 3, json.loads(json.dumps(state)))
    assert_equal(resumed, straight[seen:])
    assert resumed_end == end


def test_state_can_be_set_back_while_reading(digits_config, tmp_path):
    data = TrainingData(digits_config(True, data=TEST), tmp_path)
    first = next(data)
    state = data.get_state()
    second, third = next(data), next(data)
    data.set_state(state)
    assert_equal([next(data), next(data)], [second, third])
    assert (first["index"] != second["index"]).any()
    data.close()


def hosts(config, count, state=None):
    """Two batches of each of `count` processes, and their states."""
    parts = tuple((process,) for process in range(count))
    made = [read(config, 2, state, Shares(parts, process)) for process in range(count)]
    return [batches for batches, _ in made], [state for _, state in made]


def joined(batches):
    """Joins the batches of the processes into global ones, as in an array over all their devices."""
    return [jax.tree.map(lambda *parts: np.concatenate(parts), *step) for step in zip(*batches, strict=True)]


def test_hosts_share_the_global_batch(digits_config):
    config = digits_config(True, data=TEST)
    alone, state = read(config, 2)
    for count in (2, 4):
        batches, states = hosts(config, count)
        assert batches[0][0]["image"].shape == (8 // count, 4, 8, 8, 1)
        assert_equal(joined(batches), alone)
        assert states == [state] * count


def test_host_count_may_change_at_a_restart(digits_config):
    config = digits_config(True, data=TEST)
    straight, _ = read(config, 4)
    _, states = hosts(config, 2)
    assert_equal(read(config, 2, states[1])[0], straight[2:])
    _, state = read(config, 2)
    assert_equal(joined(hosts(config, 4, state)[0]), straight[2:])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_batch_size_may_change_at_a_restart(digits_config, count):
    """No row is skipped or repeated, though the place of the restart is no multiple of the new size."""
    state = read(digits_config(True, data=TEST, train={"batch_size": 20}), 1)[1]
    config = digits_config(True, data=TEST, train={"batch_size": 8})
    batches, states = hosts(config, count, state)
    rows = training_rows(config)
    made = np.concatenate([batch["index"] for batch in joined(batches)])
    np.testing.assert_array_equal(made, [rows[position]["index"] for position in range(20, 36)])
    assert_equal(joined(hosts(config, count, states[0])[0]), read(config, 2, states[0])[0])


def test_a_state_of_something_else(digits_config, tmp_path):
    data = TrainingData(digits_config(data=TEST), tmp_path)
    for state in ({}, {"place": 3}):
        with pytest.raises(UserError, match="is none of this version; train in another workdir"):
            data.set_state(state)
    data.close()


@pytest.mark.parametrize(
    ("sections", "fragment"),
    [
        ({"model": {"num_classes": 11}}, "config.model.num_classes=11 must be 10, the number of classes"),
        (
            {"data": {"image_size": 16}, "tokenizer": {"patch": 4}, "model": {"latent_channels": 16}},
            "config.data.image_size=16 does not fit record train/0 of config.data.source='digits', an image of 8x8",
        ),
    ],
)
def test_data_that_does_not_fit_the_model(digits_config, tmp_path, sections, fragment):
    with pytest.raises(UserError) as caught:
        TrainingData(digits_config(**sections), tmp_path)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_that_is_too_small(digits_config):
    images = {"num_images": 200, "tokens_per_image": 4, "reference_patch": 2}
    with pytest.raises(UserError, match=r"10 class\(es\) have fewer than config\.model\.num_images=200 images"):
        training_rows(digits_config(model=images))
