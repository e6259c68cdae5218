"""Signals to small processes, whose main thread is in a long call that runs no Python, as when XLA compiles."""

import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT
from transdiff_jax.parallel.signals import ENDING

BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # hours
START = """
import hashlib, os, signal, time
from transdiff_jax.parallel import signals
signals.end_on_signals(lambda number: f"stopped by {number.name}", os._exit)
"""


def started(code, ignored=()):
    def set_up():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", f"{START}\nprint('ready', flush=True)\n{code}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_up,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    out, lines = process.communicate(timeout=30)
    return process.returncode, out, lines


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_busy_process_at_once_in_one_line(number):
    process = started(BUSY)
    began = time.monotonic()
    process.send_signal(number)
    assert end(process) == (128 + number, "", f"stopped by {number.name}\n")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_the_parent_ignores_stays_ignored(number):
    process = started("time.sleep(1); print('done')", ignored=[number])
    process.send_signal(number)
    assert end(process) == (0, "done\n", "")


def test_sigterm_ends_a_process_whose_parent_ignores_it():
    process = started(BUSY, ignored=[signal.SIGTERM])
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 128 + signal.SIGTERM


def test_another_handler_gets_its_signal_and_a_second_ctrl_c_ends_the_process():
    process = started(f"signal.signal(2, lambda *_: print('saving', flush=True)); time.sleep(2); {BUSY}")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # of the same key: a terminal and a launcher may both send it
    assert process.stdout.readline() == "saving\n"
    time.sleep(2)  # now it is busy
    process.send_signal(signal.SIGINT)
    code, _, lines = end(process)
    assert code == 128 + signal.SIGINT
    assert lines.splitlines()[0] == "SIGINT: the run saves and ends; another Ctrl-C ends it at once"
    assert lines.splitlines()[-1] == "stopped by SIGINT"


def test_it_ends_even_if_nobody_reads_its_lines():
    process = started(BUSY)
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
