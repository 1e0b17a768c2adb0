"""Tensors out of a PyTorch checkpoint without running anything that is in it.

A pickle is a program: it names functions and has them called. Here every name it uses stands for a record that does
nothing, except those by which tensors and plain containers are written. What cannot be told from that is left out.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LARGEST_PROGRAM = 64 << 20
"""Bytes of the pickle itself, without the tensors, beyond which it is none of ours."""


class UnreadableError(ValueError):
    """A file that is no PyTorch checkpoint, or a damaged one."""


class Skipped:
    """Whatever a checkpoint names that is no tensor and no plain container: takes everything, does nothing."""

    def __init__(self, *args: object, **fields: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Nothing."""

    def extend(self, values: object) -> None:
        """Nothing."""

    def add(self, value: object) -> None:
        """Nothing."""

    def __call__(self, *args: object, **fields: object) -> "Skipped":
        """Another of its kind."""
        return Skipped()


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _Stored:
    """A tensor that is described and not read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: object, offset: object, size: object, stride: object, *others: object) -> object:
    if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        return Skipped()
    if type(offset) is not int or not all(type(n) is int and n >= 0 for n in (*size, *stride, offset)):
        return Skipped()
    return _Stored(storage, offset, size, stride)


def _parameter(data: object, *others: object) -> object:
    return data


_BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        build = _BUILDERS.get((module, name))
        if build is None:
            return type("Skipped", (Skipped,), {})
        return partial(build)  # a fresh one each time, so that nothing a file writes onto it outlives the file

    def persistent_load(self, pid: Any) -> object:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
            return Skipped()
        return _Storage(str(key), dtype, count)


def tensors_in(path: Path, wanted: str = "state_dict") -> dict[str, Tensor]:
    """The named tensors of one dictionary of a checkpoint, on the CPU; everything else in the file is left alone.

    Args:
        wanted: key of that dictionary at the top level.

    Raises:
        UnreadableError: if the file is not in the format of PyTorch 1.6 or later, is damaged, or has no such
            dictionary of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            top = _content(archive)
            found = top.get(wanted) if isinstance(top, dict) else None
            if not isinstance(found, dict):
                raise UnreadableError(f"it holds no {wanted!r}")
            return dict(_read(archive, found))
    except UnreadableError:
        raise
    except zipfile.BadZipFile as error:
        raise UnreadableError(
            "it is not in the zip format that PyTorch writes since 1.6. If it is an older checkpoint, save it again "
            "with a newer PyTorch where you trust it"
        ) from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise UnreadableError(f"it is damaged ({type(error).__name__}: {error})") from error


def _content(archive: zipfile.ZipFile) -> object:
    programs = [i for i in archive.infolist() if i.filename.endswith("/data.pkl") or i.filename == "data.pkl"]
    if len(programs) != 1:
        raise UnreadableError("it holds no data.pkl, which every PyTorch checkpoint has")
    if programs[0].file_size > LARGEST_PROGRAM:
        raise UnreadableError(f"its description has more than {LARGEST_PROGRAM >> 20} MiB")
    root = programs[0].filename.removesuffix("data.pkl")
    order = root + "byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise UnreadableError("it was written on a big-endian machine")
    with archive.open(programs[0]) as file:
        return _Restricted(file).load()


def _read(archive: zipfile.ZipFile, found: dict[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    root = next(n for n in archive.namelist() if n.endswith("data.pkl")).removesuffix("data.pkl")
    flat: dict[str, Tensor] = {}
    for name, stored in found.items():
        if not (isinstance(name, str) and isinstance(stored, _Stored)):
            continue
        storage = stored.storage
        if storage.key not in flat:
            entry = archive.getinfo(f"{root}data/{storage.key}")
            if entry.compress_type != zipfile.ZIP_STORED:  # a few bytes could stand for any number
                raise UnreadableError(f"{name} is compressed, which PyTorch never does")
            if entry.file_size != storage.count * storage.dtype.itemsize:
                raise UnreadableError(f"the numbers of {name} are incomplete")
            data = bytearray(archive.read(entry))
            empty = torch.empty(0, dtype=storage.dtype)
            flat[storage.key] = torch.frombuffer(data, dtype=storage.dtype) if data else empty
        last = stored.offset + sum((n - 1) * s for n, s in zip(stored.size, stored.stride, strict=True))
        if math.prod(stored.size) > storage.count:  # with stride 0 one number could fill any memory
            raise UnreadableError(f"{name} has more entries than its file has numbers")
        if math.prod(stored.size) and last >= storage.count:
            raise UnreadableError(f"{name} reaches beyond its numbers")
        yield name, flat[storage.key].as_strided(stored.size, stored.stride, stored.offset).clone()
