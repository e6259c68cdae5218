import re

from transdiff_jax.parallel import progress
from transdiff_jax.parallel.progress import Progress


def test_lines_say_how_far_how_fast_and_how_long(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level("INFO", logger="absl"):
        loop = Progress("sampled", "images", 100)
        for _ in range(3):
            now[0] += 3
            loop.add(10)
        assert loop.finish() == 9
    assert [record.getMessage() for record in caplog.records] == [
        "sampled 10 of 100, 3.3 images/s, ETA 27 s",
        "sampled 30 of 100, 3.3 images/s, ETA 21 s",
        "sampled 30 images, 3.3 images/s",
    ]


def test_a_loop_that_did_nothing_is_silent(caplog):
    with caplog.at_level("INFO", logger="absl"):
        assert Progress("cached", "images", 0).finish() >= 0
    assert not re.search("cached", caplog.text)
