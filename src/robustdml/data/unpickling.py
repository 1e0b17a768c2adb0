"""Reading a pickle of plain values and byte arrays without executing it.

A pickle is a program. Here the only functions that it can call are the two stand-ins below, which write down what numpy
would have been asked to build; an array of bytes is then made from that, or the file is refused.
"""

import io
import pickle
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from robustdml.data.errors import DataError

LARGEST = 1 << 28
"""Bytes beyond which a file is not read."""
_BYTES = ("u1", "|u1")


class _Kind:
    """Stands in for `numpy.dtype`."""

    def __init__(self, name: object, *others: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment say nothing about single bytes."""


class _Array:
    """Stands in for an array under construction."""

    content: tuple[Any, ...] = ()

    def __setstate__(self, state: object) -> None:
        self.content = state if isinstance(state, tuple) else ()

    def tensor(self, path: Path) -> UInt8[Tensor, "..."]:
        """The array, if it is one of bytes in C order.

        Raises:
            DataError: otherwise.
        """
        try:
            _, shape, kind, fortran, values = self.content
        except ValueError:
            raise DataError(f"{path} holds an unfinished array.") from None
        data = values.encode("latin-1") if isinstance(values, str) else values
        fits = isinstance(kind, _Kind) and kind.name in _BYTES and not fortran and isinstance(data, bytes)
        if not (fits and isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
            raise DataError(f"{path} holds an array that is not one of bytes in C order.")
        if len(data) != prod(shape):
            raise DataError(f"{path} holds an array of {len(data)} bytes that announces the shape {shape}.")
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).reshape(shape)


class _ArrayType:
    """Stands in for `numpy.ndarray` where it is named, and does nothing when called."""


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    """Stands in for `numpy.core.multiarray._reconstruct`."""
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes into old pickles."""
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        raise pickle.UnpicklingError(f"bytes are written as latin1 text, found {type(text).__name__} in {encoding!r}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of it")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file: plain values, and byte arrays as tensors. Nothing in the file is executed.

    Raises:
        DataError: if the file is missing or too large, asks for any class or function but those of numpy arrays, or
            holds something else than a dictionary.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 20} MiB; such a file is not read.")
        found = _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} was refused: a data file holds plain values and arrays of bytes, but {error}. Nothing in it was "
            "executed. Get another copy."
        ) from error
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). Get another copy.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, expected a dictionary. Get another copy.")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): value.tensor(path)
        if isinstance(value, _Array)
        else value
        for key, value in found.items()
    }
