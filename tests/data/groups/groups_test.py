import concurrent.futures
import json
import logging
import multiprocessing
import threading

import cloudpickle
import numpy as np
import pytest

from tests.support.configs import tiny_config
from transdiff_jax.data.groups.groups import RandomGroups, SingleRecords, make_groups
from transdiff_jax.data.groups.index import IndexedGroups
from transdiff_jax.errors import UserError

LABELS = np.array([0, 1, 0, 2, 1, 0, 1, 2, 0, 2, 1, 2, 0], np.int32)


class Records:
    """Labelled records, named like those of a folder."""

    class_names = ("n0", "n1", "n2")

    def __len__(self):
        return len(LABELS)

    def label(self, index):
        return int(LABELS[index])

    def labels(self, records=None):
        return LABELS if records is None else LABELS[records.start : records.stop]

    def id(self, index):
        return f"n{LABELS[index]}/{index}.JPEG"

    def labels_and_ids(self):
        return self.labels(), [self.id(index) for index in range(len(self))]


def test_group_is_of_one_class_without_repeats_and_ends_with_its_record():
    groups, generator = RandomGroups(LABELS, 4), np.random.default_rng(0)
    assert len(groups) == len(LABELS)
    for index in list(range(len(LABELS))) * 5:
        group = groups.members(index, generator)
        assert group.shape == (4,)
        assert group[-1] == index
        assert len(set(group.tolist())) == 4
        assert (LABELS[group] == LABELS[index]).all()


def test_references_are_drawn_anew_and_in_any_order():
    groups, generator = RandomGroups(LABELS, 3), np.random.default_rng(0)
    drawn = [tuple(groups.members(0, generator)[:-1].tolist()) for _ in range(300)]
    assert set(drawn) == {(a, b) for a in (2, 5, 8, 12) for b in (2, 5, 8, 12) if a != b}


def test_generator_decides():
    groups = RandomGroups(LABELS, 4)
    first, again = (groups.members(0, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_one_image_is_the_record_alone():
    groups = make_groups(tiny_config(), Records())
    assert isinstance(groups, SingleRecords)
    assert len(groups) == len(LABELS)
    assert [groups.members(index, np.random.default_rng(0)).tolist() for index in range(3)] == [[0], [1], [2]]


def test_smallest_class_that_will_do_gives_all_its_images():
    group = RandomGroups(np.array([5, 5, 5]), 3).members(1, np.random.default_rng(0))
    assert sorted(group.tolist()) == [0, 1, 2]


# --- classes of too few images ---


SMALL = np.array([5, 7, 5, 5, 7, 5, 9])  # 5 has four records, 7 two, 9 one


def test_class_that_is_too_small_is_named():
    with pytest.raises(UserError) as caught:
        RandomGroups(SMALL, 4)
    assert "2 class(es) have fewer than config.model.num_images=4 images (class 7 has 2, class 9 has 1)" in str(
        caught.value
    )
    assert "config.data.small_classes to skip or repeat" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_small_classes_can_be_left_out(caplog):
    with caplog.at_level(logging.WARNING, "absl"):
        groups = RandomGroups(SMALL, 4, "skip")
    assert "class 7 has 2, class 9 has 1): left out" in caplog.text
    generator = np.random.default_rng(0)
    assert [groups.members(row, generator)[-1] for row in range(len(groups))] == [0, 2, 3, 5]
    with pytest.raises(UserError, match=r"no class has config\.model\.num_images=5 images"):
        RandomGroups(SMALL, 5, "skip")


def test_images_of_small_classes_can_repeat():
    groups, generator = RandomGroups(SMALL, 4, "repeat"), np.random.default_rng(0)
    assert len(groups) == len(SMALL)
    assert groups.members(6, generator).tolist() == [6, 6, 6, 6]
    for _ in range(20):
        group = groups.members(1, generator)
        assert group[-1] == 1
        # All images of the class, as evenly as possible.
        assert sorted(np.bincount(group, minlength=5)[[1, 4]].tolist()) in ([1, 3], [2, 2])
        assert set(group.tolist()) == {1, 4}
    assert len(set(groups.members(0, generator).tolist())) == 4


# --- labels in a job of several processes ---


class Job:
    """Runs `make_groups` in threads that stand for processes."""

    def __init__(self, monkeypatch, sources):
        self._sources, self._count = sources, len(sources)
        self._own, self._barrier = threading.local(), threading.Barrier(self._count, timeout=30)
        self._parts = [None] * self._count
        monkeypatch.setattr("jax.process_count", lambda: self._count)
        monkeypatch.setattr("jax.process_index", lambda: self._own.index)
        monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", self._gather)

    def _gather(self, part):
        self._parts[self._own.index] = part
        self._barrier.wait()
        gathered = np.stack(self._parts)
        self._barrier.wait()
        return gathered

    def _make(self, index):
        self._own.index = index
        try:
            return make_groups(tiny_config(mrar=True), self._sources[index])
        except UserError as error:
            return str(error)

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(self._make, range(self._count)))


class PartlyRead(Records):
    """Notes which labels were read; that of `damaged` cannot be read."""

    def __init__(self, damaged=None):
        self.read, self._damaged = [], damaged

    def labels(self, records=None):
        self.read += range(len(self)) if records is None else records
        if self._damaged in self.read:
            raise UserError("damaged")
        return super().labels(records)


@pytest.mark.parametrize("processes", [2, 3, 5, 13, 20])
def test_each_process_reads_its_part_of_the_labels_and_all_have_the_same_groups(monkeypatch, processes):
    alone = RandomGroups(LABELS, 4)
    sources = [PartlyRead() for _ in range(processes)]
    for groups in Job(monkeypatch, sources).run():
        for row in range(len(alone)):
            ours, theirs = (made.members(row, np.random.default_rng(row)).tolist() for made in (groups, alone))
            assert ours == theirs
    assert [index for source in sources for index in source.read] == list(range(len(LABELS)))


def test_a_process_that_cannot_read_its_part_ends_all(monkeypatch):
    errors = Job(monkeypatch, [PartlyRead(damaged=6) for _ in range(3)]).run()
    other = "process 1 could not read its part of the labels: its output says why"
    assert errors == [other, "damaged", other]


def test_processes_with_other_records_are_told(monkeypatch):
    class Fewer(PartlyRead):
        def __len__(self):
            return len(LABELS) - 1

    message = (
        "config.data.source does not have the same number of records in all processes of this job: give all the same"
    )
    assert Job(monkeypatch, [PartlyRead(), Fewer()]).run() == [message] * 2


# --- index files ---


def write(path, *groups):
    path.write_text("".join(json.dumps(group) + "\n" for group in groups))
    return path


GROUPS = (
    {"cate": "n0", "files": ["0.JPEG", "2.JPEG", "5.JPEG", "8.JPEG"]},
    {"cate": "n1", "files": ["10.JPEG", "1.JPEG", "6.JPEG", "4.JPEG"]},
    {"cate": "n2", "files": ["n2/3.JPEG", "n2/11.JPEG", "n2/9.JPEG", "n2/7.JPEG"]},  # whole ids
)


def test_groups_of_an_index_file_are_taken_as_they_are(tmp_path):
    path = write(tmp_path / "index.jsonl", *GROUPS)
    groups = make_groups(tiny_config(mrar=True, data={"groups": f"index:{path}"}), Records())
    assert len(groups) == 3
    members = [groups.members(row, np.random.default_rng(0)).tolist() for row in range(3)]
    assert members == [[0, 2, 5, 8], [10, 1, 6, 4], [3, 11, 9, 7]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", 'line 2: must be a group such as {"cate"'),
        ("[1]", "line 2: must be a group"),
        ('{"cate": "n0"}', "line 2: must be a group"),
        ('{"cate": "n0", "files": 3}', "line 2: must be a group"),
        ('{"cate": "n0", "files": "abcd"}', "line 2: must be a group"),
        ('{"cate": "n0", "files": ["0.JPEG", ["2.JPEG"], null, "8.JPEG"]}', "line 2: must be a group"),
        ("[" * 100_000, "line 2: must be a group"),
        ('{"cate": "n0", "files": ["0.JPEG"]}', "line 2: 1 files, but config.model.num_images=4"),
        (
            '{"cate": "n0", "files": ["0.JPEG", "2.JPEG", "cat.JPEG", "8.JPEG"]}',
            "line 2: config.data.source has no record n0/cat.JPEG",
        ),
        (
            '{"cate": "x", "files": ["n0/0.JPEG", "n0/2.JPEG", "n1/1.JPEG", "n0/8.JPEG"]}',
            "line 2: the files are of classes [0, 0, 1, 0], but a group is of one class",
        ),
    ],
)
def test_lines_that_are_no_groups_are_named(tmp_path, line, message):
    path = write(tmp_path / "index.jsonl", GROUPS[0])
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError) as caught:
        IndexedGroups(path, Records(), 4)
    assert str(caught.value).startswith(f"{path}, ")
    assert message in str(caught.value)


def test_index_files_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("missing", "cannot be read: No such file"),
        ("empty", "holds no groups"),
        ("binary", "is not text"),
        ("folder", "is not a file"),
    ):
        with pytest.raises(UserError, match=message):
            IndexedGroups(tmp_path / name, Records(), 4)


def members_of(pickled, queue):
    groups = cloudpickle.loads(pickled)
    queue.put([groups.members(row, np.random.default_rng(row)).tolist() for row in range(len(groups))])


def test_groups_pickle_small_and_are_the_same_in_another_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    index = IndexedGroups(write(tmp_path / "index.jsonl", *GROUPS), Records(), 4)
    for groups in (RandomGroups(np.arange(100_000) % 1000, 4), index):
        pickled, queue = cloudpickle.dumps(groups), context.Queue()
        assert len(pickled) < 1000
        rows = range(min(len(groups), 50))
        worker = context.Process(target=members_of, args=(pickled, queue))
        worker.start()
        made = queue.get(timeout=120)
        worker.join()
        assert [made[row] for row in rows] == [groups.members(row, np.random.default_rng(row)).tolist() for row in rows]
