"""Files that are there completely or not at all."""

import contextlib
import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class OutputError(OSError):
    """An output folder or file that cannot be written; what was there before is untouched."""


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it if the block succeeds and removed if it does not.

    Raises:
        OutputError: if the folder is missing, read-only or full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}. Nothing was changed. "
        + ("Free some space, or give" if error.errno == errno.ENOSPC else "Give")
        + " a writable folder with --out."
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all; NaN and infinity are written as null."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """One JSON document; NaN and infinity are written as null."""
    return json.dumps(_finite(value), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def write_with(path: Path, save: Callable[[Path], object]) -> None:
    """Write through a library's own saving function, completely or not at all."""
    with beside(path) as part:
        try:
            save(part)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error
