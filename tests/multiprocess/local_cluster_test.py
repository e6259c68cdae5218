"""launch/local_cluster.sh itself, with commands that end at once."""

import signal
import subprocess
import time

import pytest

from tests.support.paths import LAUNCH

SCRIPT = LAUNCH / "local_cluster.sh"


def cluster(count, code, **options):
    arguments = [SCRIPT, str(count), "--", "bash", "-c", code]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, **options)


def test_each_process_knows_its_place_and_its_lines_are_marked():
    settings = "$TRANSDIFF_PROCESS of $TRANSDIFF_PROCESSES, $JAX_PLATFORMS at $TRANSDIFF_COORDINATOR"
    result = cluster(3, f'echo "{settings}"; echo oh >&2')
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    ports = {line.rpartition(":")[2] for line in lines if "localhost" in line}
    (port,) = ports
    expected = [f"[{i}] {i} of 3, cpu at localhost:{port}" for i in range(3)]
    assert sorted(line for line in lines if "oh" not in line.split()) == expected
    assert sorted(line for line in lines if "oh" in line.split()) == [f"[{i}] oh" for i in range(3)]


def test_one_failure_ends_all_in_stated_time_with_its_code():
    began = time.monotonic()
    # The other processes and their children ignore SIGTERM.
    result = cluster(3, '(($TRANSDIFF_PROCESS == 1)) && exit 7; trap "" TERM; sleep 50 & wait; sleep 50')
    assert result.returncode == 7
    assert time.monotonic() - began < 15
    assert "[cluster] process 1 ended with exit code 7: stopping the others" in result.stderr


def test_a_killed_process_is_a_failure():
    result = cluster(2, "(($TRANSDIFF_PROCESS == 0)) && kill -KILL $$; sleep 0.3")
    assert result.returncode == 128 + signal.SIGKILL
    assert "process 0 ended with exit code 137" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all(number):
    code = f'trap "echo got; exit 0" {number.name}; echo ready; while :; do sleep 0.05; done'
    # If the tests run in the background, everything that they start may ignore Ctrl-C.
    process = subprocess.Popen(
        [SCRIPT, "2", "--", "bash", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = [process.stdout.readline().strip() for _ in range(2)]
    assert sorted(lines) == ["[0] ready", "[1] ready"]
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(output.split("\n")) == ["", "[0] got", "[1] got"]


@pytest.mark.parametrize("arguments", [(), ("2",), ("0", "--", "true"), ("2", "true"), ("two", "--", "true")])
def test_usage(arguments):
    result = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: usage: launch/local_cluster.sh N -- COMMAND...\n"
