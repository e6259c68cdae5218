import errno
import hashlib
import os
import threading
import time

import numpy as np
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.generation import image_writer
from transdiff_jax.generation.image_writer import MAX_BATCHES, ImageWriter
from transdiff_jax.images.png import load_png


def batch(number, size=3):
    return [(f"{number}_{i}.png", np.full((2, 2, 3), 10 * number + i, np.uint8)) for i in range(size)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "journals").mkdir()
    return tmp_path


def test_files_and_journal(folder):
    with ImageWriter(folder, "journals") as writer:
        for number in range(5):
            writer.write(batch(number))
    names = {f"{number}_{i}.png" for number in range(5) for i in range(3)}
    assert {path.name for path in folder.glob("*.png")} == names
    assert load_png(folder / "4_2.png", 3).tolist() == [[[42] * 3] * 2] * 2
    (journal,) = (folder / "journals").iterdir()
    noted = dict(line.split()[::-1] for line in journal.read_text().splitlines())
    assert noted == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_memory_is_bounded_when_writing_is_slow(folder, monkeypatch):
    lock, taken, finished, waiting = threading.Lock(), 0, [], []

    def slow(path, data):
        time.sleep(0.02)
        with lock:
            finished.append(path.name)

    monkeypatch.setattr(image_writer, "write_bytes", slow)
    with ImageWriter(folder, "journals") as writer:
        for number in range(6):
            writer.write(batch(number))
            taken += 1
            with lock:
                whole = sum(all(name in finished for name, _ in batch(i)) for i in range(taken))
            waiting.append(taken - whole)
    assert max(waiting) == MAX_BATCHES, "it works in the background, and no further behind than this"
    assert len(finished) == 18


@pytest.mark.parametrize("failing", ["0_0.png", "2_1.png", "3_2.png"])
def test_an_error_reaches_the_caller(folder, monkeypatch, failing):
    written = []

    def fail(path, data):
        if path.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path.name)

    monkeypatch.setattr(image_writer, "write_bytes", fail)
    message = rf"{failing} could not be written \(No space left on device\): free space"
    with pytest.raises(UserError, match=message), ImageWriter(folder, "journals") as writer:
        for number in range(4):
            writer.write(batch(number))
    (journal,) = (folder / "journals").iterdir()
    assert sorted(line.split()[1] for line in journal.read_text().splitlines()) == sorted(written)


def test_a_bug_is_not_taken_for_a_full_disk(folder):
    with pytest.raises((TypeError, ValueError)), ImageWriter(folder, "journals") as writer:
        writer.write([("a.png", np.zeros((2, 2, 3), np.float64))])


def test_an_error_of_the_caller_drops_what_waits(folder, monkeypatch):
    monkeypatch.setattr(image_writer, "write_bytes", lambda path, data: time.sleep(0.05))
    with pytest.raises(KeyboardInterrupt), ImageWriter(folder, "journals") as writer:
        writer.write(batch(0, size=200))
        raise KeyboardInterrupt
    (journal,) = (folder / "journals").iterdir()
    assert len(journal.read_text().splitlines()) < 20
