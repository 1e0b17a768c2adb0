"""What a person sees: results on stdout; progress, notes and warnings on stderr. One process of several speaks."""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from robustdml.files import json_text

EVERY_SECONDS = 10.0


def is_speaker() -> bool:
    """Whether this is the process that prints."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def plain_warnings(quiet: bool) -> Iterator[None]:
    """Warnings as single lines on stderr."""

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        if is_speaker() and not quiet:
            print(f"warning: {message}", file=sys.stderr)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def document(value: Any) -> None:
    """One JSON document on stdout."""
    if is_speaker():
        sys.stdout.write(json_text(value))


def lines(text: Sequence[str]) -> None:
    """A result on stdout."""
    if is_speaker():
        sys.stdout.write("".join(line + "\n" for line in text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Aligned columns, the first `left` of them to the left."""
    whole = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in whole) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in whole
    ]


def both_ways(eps: float, norm: str = "linf") -> str:
    """A radius as people write it and as a number: 77/255 = 0.302."""
    return f"{eps:.3g}" if norm == "l2" else f"{eps * 255:.4g}/255 = {eps:.3g}"


class Progress:
    """A bar with rate and time left where stderr is a terminal, else a plain line at most every ten seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self.silent = quiet or not is_speaker()
        self.bar: Any = None
        self.task: Any = None
        self.said = self.began = time.monotonic()
        self.first = 0
        self.task_total: int | None = None

    def __enter__(self) -> "Progress":
        if not self.silent and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self.bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def note(self, text: str) -> None:
        """A line that is always said."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        elif not self.silent:
            print(text, file=sys.stderr)

    def line(self, text: str) -> None:
        """A line of a log: swallowed by the bar, and said at most every ten seconds without one."""
        if self.bar is None and not self.silent and time.monotonic() - self.said >= EVERY_SECONDS:
            self.said = time.monotonic()
            print(text, file=sys.stderr)

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` pieces; `what` is at work."""
        if self.task_total != total:  # another piece of work begins
            self.task_total, self.first, self.began = total, done, time.monotonic()
        seconds = time.monotonic() - self.began
        rate = (done - self.first) / seconds if seconds > 0 else 0.0
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(what, total=total, rate="")
            self.bar.update(self.task, completed=done, total=total, description=what, rate=f"{rate:.3g}/s")
            return
        left = f", about {(total - done) / rate:.0f} s left" if rate > 0 else ""
        self.line(f"{what}: {done} of {total}, {seconds:.0f} s, {rate:.3g}/s{left}")
