"""Reading zip and tar archives that nobody vouches for."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from robustdml.data.errors import DataError

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # broken gzip and bzip2 streams
    RuntimeError,  # an encrypted zip, and as NotImplementedError an unknown compression
)
"""What reading a damaged archive raises."""
CHUNK = 1 << 18
"""Bytes that are copied at a time."""
Read = Callable[[int], bytes]
"""(number of bytes) -> that many more bytes of a file, none at its end."""


class Member(NamedTuple):
    """A regular file of an archive, readable until the next one is asked for."""

    path: PurePosixPath
    size: int
    read: Read


def members(archive: Path, *, largest: int, most: int = 1 << 22) -> Iterator[Member]:
    """The regular files of an archive.

    Args:
        largest: unpacked bytes beyond which the archive is refused.
        most: entries beyond which it is refused.

    Raises:
        DataError: for what is no archive, for paths that leave it, links, devices, and absurd sizes. `BROKEN` lists
            what damage raises.
    """
    if zipfile.is_zipfile(archive):
        listed = _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        listed = _tar_members(archive)
    else:
        raise DataError(f"{archive} is neither a zip nor a tar archive.")
    total = 0
    for count, (name, size, is_plain, read) in enumerate(listed, start=1):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise DataError(f"{archive} was refused: its member {name!r} leads out of it.")
        if not is_plain:
            raise DataError(f"{archive} was refused: its member {name!r} is a link or a device.")
        total += size
        if total > largest:
            raise DataError(f"{archive} was refused: it unpacks to more than {largest >> 20} MiB.")
        if count > most:
            raise DataError(f"{archive} was refused: it has more than {most} entries.")
        if read:
            yield Member(path, size, read)


def _zip_members(archive: Path) -> Iterator[tuple[str, int, bool, Read | None]]:
    with zipfile.ZipFile(archive) as pack:
        for member in pack.infolist():
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            if member.is_dir() or not plain:
                yield member.filename, 0, plain, None
                continue
            with pack.open(member) as stream:
                yield member.filename, member.file_size, plain, stream.read


def _tar_members(archive: Path) -> Iterator[tuple[str, int, bool, Read | None]]:
    with tarfile.open(archive) as pack:
        for member in pack:
            plain = member.isreg() or member.isdir()
            stream = pack.extractfile(member) if member.isreg() else None
            yield member.name, member.size, plain, stream.read if stream else None
            pack.members = []  # type: ignore[attr-defined]  # known to every version; a tar of a million files would otherwise be remembered whole


def copied(member: Member, target: Path) -> None:
    """Write a member to a file that is not there yet.

    Raises:
        FileExistsError: if it is.
    """
    with target.open("xb") as file:
        while chunk := member.read(CHUNK):
            file.write(chunk)
