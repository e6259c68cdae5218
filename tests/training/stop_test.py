"""Requests to stop, in this process. Other tests send signals to whole jobs."""

import signal
import threading

import pytest

from transdiff_jax.parallel.signals import ENDING
from transdiff_jax.training.stop import StopRequest


@pytest.fixture
def stop():
    """A request, and this process's handlers as they were."""
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
    yield StopRequest()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_asks_to_stop_while_there_is_something_to_save(stop, number):
    before = signal.getsignal(number)
    assert not stop.reached()
    assert signal.getsignal(number) is before
    stop.begin()
    assert not stop.reached()
    signal.raise_signal(number)
    assert stop.reached()
    assert stop.cause == number.name
    stop.restore()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts(stop):
    stop.begin()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # schedulers may send it several times
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_nohup_holds(stop):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop.begin()
    signal.raise_signal(signal.SIGHUP)
    assert not stop.reached()
    stop.restore()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_training_in_another_thread_leaves_signals_alone(stop):
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop.begin)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not stop.reached()
