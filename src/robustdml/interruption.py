"""Stopping between two batches instead of in the middle of one."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Stopped by a signal after everything was saved; the message is the command that resumes."""


_arrived: list[int] = []
"""Signals since `listening` began: an interrupt that is raised inside a callback of the interpreter gets lost."""


@contextmanager
def listening() -> Iterator[None]:
    """SIGINT and SIGTERM interrupt this process, and are remembered where the interpreter swallows the interrupt."""
    _arrived.clear()
    hook = sys.unraisablehook

    def unless_interrupt(error: "sys.UnraisableHookArgs") -> None:
        if not isinstance(error.exc_value, KeyboardInterrupt):
            hook(error)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody else's, or ignored by a shell
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = unless_interrupt
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _arrived.append(number)
    raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGINT or SIGTERM arrived; a second one acts at once."""
    caught = _arrived.copy()
    _arrived.clear()

    def handle(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
            print("stopping after this batch; press again to stop without saving", file=sys.stderr)

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
