"""Exit codes, and which failure has which."""

import json
import os
import sys
import time
from pathlib import Path

from robustdml.command import COMMAND
from robustdml.files import OutputError
from robustdml.interruption import Interrupted

FAILED, MISUSE, UNRELIABLE, BAD_DATA, INTERRUPTED = 1, 2, 3, 4, 130


class UsageError(ValueError):
    """A command that makes no sense: an unknown name, an impossible combination, a malformed value."""


class ChildFailure(Exception):
    """What one of several processes failed with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(error: BaseException) -> int:
    """Say on stderr what went wrong, and return the exit code.

    A process among several leaves its message to the one that started them, which tells the first failure alone.
    """
    code, message = explained(error)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if report and code != INTERRUPTED:
        Path(report).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    elif message and int(os.environ.get("RANK", "0")) == 0:
        try:
            print(f"robustdml: {message}", file=sys.stderr)
        except OSError:
            return code
    return code


def explained(error: BaseException) -> tuple[int, str]:
    """Exit code and message of a failure."""
    if isinstance(error, Interrupted):
        return INTERRUPTED, f"interrupted. Continue with:\n  {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted. Type the same command again:\n  {COMMAND.get()}"
    if isinstance(error, ChildFailure):
        return error.code, str(error)
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # lives until exit, which would flush again
        return FAILED, ""
    if isinstance(error, (OutputError, FloatingPointError)):
        return FAILED, str(error)
    if isinstance(error, FileExistsError):
        return MISUSE, str(error)
    if _about_files(error):
        return BAD_DATA, str(error)
    if isinstance(error, ValueError):
        return MISUSE, str(error)
    if isinstance(error, ImportError):
        return FAILED, str(error)
    text = " ".join(str(error).split()) or "no further message"
    shown = text if len(text) < 400 else text[:400] + " …"
    return FAILED, f"{type(error).__name__}: {shown}. Run again with --debug for the traceback."


def _about_files(error: BaseException) -> bool:
    from robustdml.report.run import ResultError

    if isinstance(error, ResultError):
        return True
    from robustdml.data.errors import DataError

    return isinstance(error, DataError)
