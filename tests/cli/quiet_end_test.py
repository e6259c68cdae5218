import os
import signal
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from transdiff_jax.cli.quiet_end import CODE

LONG = """
import time
from transdiff_jax.cli.quiet_end import quiet_end
with quiet_end():
    print("first", flush=True)
    time.sleep(0.5)
    for number in range({count}):
        print(number, "." * 100, flush={flush})
"""


def head(*arguments, lines=1):
    """Runs a command whose reader goes after some lines. Returns its exit code, these lines, and its messages."""
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    read = [process.stdout.readline() for _ in range(lines)]
    process.stdout.close()
    messages = process.stderr.read()
    return process.wait(timeout=60), read, messages


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("count", [5, 10_000])
def test_a_reader_that_goes_ends_the_command_quietly(count, flush):
    code = LONG.format(count=count, flush=flush)
    assert head(sys.executable, "-c", code) == (CODE, ["first\n"], "")


def test_another_broken_pipe_is_an_error():
    code = "from transdiff_jax.cli.quiet_end import quiet_end\nwith quiet_end(): raise BrokenPipeError(32, 'a worker')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "BrokenPipeError" in result.stderr


def test_help_of_a_command_ends_quietly():
    code, _, messages = head(sys.executable, "-m", "transdiff_jax.cli.main", "convert", "--help", lines=0)
    assert (code, messages) == (CODE, "")


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_are_not_taken_by_files(tmp_path, closed):
    code = (
        "from transdiff_jax.cli.quiet_end import open_closed_streams\n"
        "import os, sys\n"
        "open_closed_streams()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "print('out'); print('error', file=sys.stderr); os.write(2, b'native')\n"
        "file.close(); sys.exit(0 if file else 1)\n"
    )

    def close():
        for number in closed:
            os.close(number)

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=close, timeout=60)
    assert result.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_ctrl_c_while_a_command_is_loaded_leaves_no_traceback():
    code = (
        "import sys, time\n"
        "from transdiff_jax.cli import main\n"
        "main.runpy.run_module = lambda *_, **__: (print(flush=True), time.sleep(60))\n"
        "sys.argv = ['transdiff', 'train']\n"
        "main.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == -signal.SIGINT
