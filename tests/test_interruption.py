"""Signals: none is lost, and who had them before gets them back."""

import os
import signal
import sys

import pytest

from robustdml.interruption import listening, stop_signals


def kill_this(number):
    os.kill(os.getpid(), number)
    sum(range(1000))  # so that the handler runs here


class Swallowing:
    """What is raised while this is deleted, the interpreter prints and drops."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        kill_this(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_the_interpreter_swallows_still_stops_the_work(number, capfd):
    with listening():
        it = Swallowing(number)
        del it
        with stop_signals() as stopped:
            assert stopped()
        with stop_signals() as stopped:  # it is told once
            assert not stopped()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_elsewhere_is_one(number):
    with pytest.raises(KeyboardInterrupt), listening():
        kill_this(number)
    with listening(), stop_signals() as stopped:
        assert not stopped()


def test_handlers_and_hook_are_given_back():
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook)
    with listening():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
