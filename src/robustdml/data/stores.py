"""Where the bytes of image files lie: a folder, or a zip archive that is read in place."""

import io
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from robustdml.data.errors import DataError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # ends with the lengths of name and extra field, which come before the data
_LARGEST_MEMBER = 1 << 28


@runtime_checkable
class Store(Protocol):
    """Files by name, readable from any thread or process."""

    def open(self, name: str) -> io.BufferedIOBase:
        """A file for reading."""
        ...

    def size(self, name: str) -> int | None:
        """Its bytes; None if there is no such file."""
        ...

    def where(self, name: str) -> str:
        """What messages call it."""
        ...


@dataclass(frozen=True)
class Directory:
    """A folder; names are paths below it."""

    path: Path

    def open(self, name: str) -> io.BufferedIOBase:
        """A file for reading."""
        return (self.path / name).open("rb")

    def size(self, name: str) -> int | None:
        """Its bytes; None if there is no such file."""
        try:
            found = os.stat(f"{self.path}/{name}")  # a Path for each of a million files takes longer than asking for it
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def where(self, name: str) -> str:
        """Its path."""
        return str(self.path / name)


@dataclass(frozen=True)
class Member:
    """A file of a zip archive: where its header begins, and how long it is packed and unpacked."""

    offset: int
    packed: int
    size: int
    deflated: bool
    checksum: int


@dataclass(frozen=True, eq=False)
class Zipped:
    """A zip archive whose files are read where they lie; nothing is unpacked to disk.

    `members` is read once, so that files can be read from any number of threads and processes.
    """

    path: Path
    members: dict[str, Member]

    def open(self, name: str) -> io.BufferedIOBase:
        """A file, unpacked in memory.

        Raises:
            DataError: if the archive is damaged there.
        """
        member = self.members[name]
        with self.path.open("rb") as archive:
            archive.seek(member.offset)
            header = archive.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
                raise DataError(f"{self.where(name)}: the archive is damaged there. Get another copy.")
            _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            archive.seek(name_length + extra_length, io.SEEK_CUR)
            content = archive.read(member.packed)
        try:
            if member.deflated:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        except zlib.error as error:
            raise DataError(f"{self.where(name)}: the archive is damaged there ({error}). Get another copy.") from error
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise DataError(f"{self.where(name)}: the archive is damaged there. Get another copy.")
        return io.BytesIO(content)

    def size(self, name: str) -> int | None:
        """Its unpacked bytes; None if there is no such file."""
        member = self.members.get(name)
        return member.size if member else None

    def where(self, name: str) -> str:
        """Archive and name."""
        return f"{self.path}/{name}"


@dataclass(frozen=True, eq=False)
class Several:
    """Stores side by side; names begin with that of the store and a colon."""

    stores: dict[str, Store]

    def open(self, name: str) -> io.BufferedIOBase:
        """A file for reading."""
        store, rest = self._of(name)
        return store.open(rest)

    def size(self, name: str) -> int | None:
        """Its bytes; None if there is no such file."""
        store, rest = self._of(name)
        return store.size(rest)

    def where(self, name: str) -> str:
        """What its store calls it."""
        store, rest = self._of(name)
        return store.where(rest)

    def _of(self, name: str) -> tuple[Store, str]:
        first, _, rest = name.partition(":")
        return self.stores[first], rest


def zipped(path: Path) -> Zipped:
    """A zip archive, its table of contents read.

    Raises:
        DataError: if it is no zip archive, or holds encrypted, absurdly large or strangely packed files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} cannot be read as a zip archive: {error}. Get another copy.") from error
    for info in listed:
        strange = info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.flag_bits & 1 or strange or max(info.file_size, info.compress_size) > _LARGEST_MEMBER:
            raise DataError(f"{path}: {info.filename!r} is encrypted, too large or packed in an unknown way.")
    return Zipped(path, {
        info.filename: Member(
            info.header_offset, info.compress_size, info.file_size, info.compress_type == zipfile.ZIP_DEFLATED, info.CRC
        )
        for info in listed
    })  # fmt: skip
