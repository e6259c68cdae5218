import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from transdiff_jax.errors import UserError
from transdiff_jax.parallel.profiling import Profile, Profiler


@pytest.fixture
def calls(monkeypatch):
    """What is asked of jax.profiler, in turn with the steps of a loop."""
    made = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: made.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: made.append("stop"))
    return made


def loop(calls, profile, total):
    with Profiler(profile, "steps", total) as profiler:
        for number in range(1, total + 1):
            calls.append(number)
            profiler.step(jnp.zeros(1))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 1, ["start", 1, "stop", 2, 3, 4]),
        (2, 3, [1, "start", 2, 3, "stop", 4]),
        (3, 9, [1, 2, "start", 3, 4, "stop"]),
    ],
)
def test_the_named_steps_are_traced(calls, tmp_path, caplog, first, last, expected):
    with caplog.at_level("INFO", logger="absl"):
        loop(calls, Profile(tmp_path, first, last), 4)
    assert calls == expected
    assert f"the trace of steps {first} to {min(last, 4)} is in {tmp_path}" in caplog.text


def test_without_a_profile_nothing_is_traced(calls):
    loop(calls, None, 2)
    assert calls == [1, 2]


def test_an_error_in_the_loop_ends_the_trace(calls, tmp_path):
    with pytest.raises(ZeroDivisionError), Profiler(Profile(tmp_path, 1, 3), "steps", 3):
        raise ZeroDivisionError
    assert calls == ["start", "stop"]


def test_a_trace_that_cannot_be_made_is_refused_before_the_loop(tmp_path):
    with pytest.raises(UserError, match="nothing to trace from number 5 on: this command does 4 batches"):
        Profiler(Profile(tmp_path, 5, 6), "batches", 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the trace cannot be written to .*file"):
        Profiler(Profile(tmp_path / "file", 1, 1), "steps", 4)


def test_a_trace_holds_what_the_device_did(tmp_path):
    double = jax.jit(lambda x: 2 * x)
    with Profiler(Profile(tmp_path, 2, 3), "steps", 4) as profiler:
        for _ in range(4):
            profiler.step(double(jnp.zeros(8)))
    (folder,) = (tmp_path / "plugins" / "profile").iterdir()
    (trace,) = folder.glob("*.trace.json.gz")
    assert list(folder.glob("*.xplane.pb"))
    names = [event.get("name", "") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]]
    assert any("lambda" in name for name in names)
