"""Where data files are looked for, and how missing ones are downloaded or unpacked."""

import gzip
import hashlib
import http.client
import io
import lzma
import os
import shlex
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from robustdml.data.errors import DataError

LARGEST_FILE = 64 << 20
"""Bytes beyond which an unpacked file cannot be one of ours (the largest published one has 47 040 016)."""
LARGEST_ARCHIVE = 1 << 30
"""Unpacked bytes beyond which an archive is refused."""
_CHUNK = 1 << 18
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # broken gzip and bzip2 streams
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # an unknown compression
)
Read = Callable[[int], bytes]
"""(number of bytes) -> that many more bytes of a file, none at its end."""


@dataclass(frozen=True)
class Published:
    """A data set as its authors published it: four gzipped IDX files.

    Attributes:
        folder: where the files lie below a data root.
        mirror: address of the folder with the `.gz` files.
        contents: file name → MD5 of the *unpacked* file. Copies are packed differently, their contents agree.
        sizes: numbers of training and test images.
        packaged: folders where a system package puts the files.
    """

    folder: str
    mirror: str
    contents: dict[str, str]
    sizes: tuple[int, int] = (60_000, 10_000)
    packaged: tuple[Path, ...] = ()


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        folder="MNIST/raw",
        mirror="https://ossci-datasets.s3.amazonaws.com/mnist/",
        contents={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion": Published(
        folder="FashionMNIST/raw",
        mirror="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        contents={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        packaged=(Path("/usr/share/datasets/fashion-mnist"),),
    ),
}


def published(name: str) -> Published:
    """The files of a data set that is fetched by name.

    Raises:
        ValueError: for any other data set.
    """
    if name not in PUBLISHED:
        raise ValueError(f"There are no files to fetch for {name!r}; files are fetched for {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def roots(root: Path | None = None) -> list[Path]:
    """Data roots, first to last: `root`, `ROBUSTDML_DATA`, the user's cache (XDG_CACHE_HOME), `~/.torch`."""
    named = os.environ.get("ROBUSTDML_DATA", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = Path.home()
    listed = [
        *([root.expanduser()] if root else []),
        *([Path(named).expanduser()] if named else []),
        # The XDG specification tells programs to ignore relative paths.
        (cache if cache.is_absolute() else home / ".cache") / "robustdml",
        home / ".torch",
    ]
    return list(dict.fromkeys(listed))


def places(name: str, root: Path | None = None) -> list[Path]:
    """Folders that may hold the files of a published data set, in the order in which they are tried."""
    source = published(name)
    return [*(r / source.folder for r in roots(root)), *source.packaged]


def how_to_get(name: str, root: Path | None = None) -> str:
    """The commands that fetch the files of a published data set."""
    where = f" --data-root {shlex.quote(str(root))}" if root else ""
    return (
        f"Download it with: robustdml data {name} --download{where}\n"
        f"or unpack a copy:  robustdml data {name} --from ARCHIVE{where}"
    )


def file_in(place: Path, name: str) -> Path | None:
    """The file `name` of a folder, unpacked or as `.gz`; None if there is neither."""
    return next((path for path in (place / name, place / f"{name}.gz") if path.is_file()), None)


def find(name: str, root: Path | None = None) -> dict[str, Path]:
    """The files of a published data set, from the first place that holds any of them.

    Raises:
        DataError: if no place holds any, or the first one that does is incomplete.
    """
    wanted = published(name).contents
    tried = places(name, root)
    for place in tried:
        found = {file: path for file in wanted if (path := file_in(place, file))}
        if not found:
            continue
        missing = [file for file in wanted if file not in found]
        if missing:
            raise DataError(
                f"{name} is incomplete in {place}: found {len(found)} of {len(wanted)} files, "
                f"missing {', '.join(f'{file}.gz' for file in missing)}.\n{how_to_get(name, root)}"
            )
        return found
    looked = "\n".join(f"  {place}" for place in tried)
    files = ", ".join(f"{file}.gz" for file in wanted)
    raise DataError(f"{name} was not found. Looked for {files} (packed or not) in\n{looked}\n{how_to_get(name, root)}")


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """A data file for reading; `.gz` and `.gz.part` are unpacked on the fly.

    Raises:
        DataError: where reading meets a damaged or truncated stream.
    """
    try:
        with gzip.open(path) if ".gz" in path.suffixes else path.open("rb") as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}.") from error


def checksum(path: Path) -> str:
    """MD5 of the unpacked content, or the reason why there is none."""
    digest = hashlib.md5(usedforsecurity=False)
    total = 0
    try:
        with opened(path) as stream:
            while chunk := stream.read(_CHUNK):
                total += len(chunk)
                if total > LARGEST_FILE:
                    return f"unknown (more than {LARGEST_FILE >> 20} MiB)"
                digest.update(chunk)
    except DataError as error:
        return f"unknown ({error})"
    return digest.hexdigest()


def owner(md5: str) -> str | None:
    """Which published file has this content, for people."""
    return next(
        (f"{file} of {name}" for name, p in PUBLISHED.items() for file, m in p.contents.items() if m == md5), None
    )


def silent(file: str, done: int, total: int | None) -> None:
    """Reports no progress."""


Progress = Callable[[str, int, int | None], None]
"""(file, bytes so far, bytes in all if known), called while a file arrives."""


def download(name: str, root: Path | None = None, progress: Progress = silent) -> Path:
    """Fetches what is missing or damaged into the first place that is searched, and returns that folder.

    Bytes arrive in a `.part` file, which a later call continues. It takes its final name, replacing a damaged copy,
    only after its content has the published MD5.

    Raises:
        ValueError: if nothing is published under this name.
        DataError: if the mirror fails or sends something else.
    """
    source = published(name)
    place = places(name, root)[0]
    place.mkdir(parents=True, exist_ok=True)
    for file, md5 in source.contents.items():
        present = file_in(place, file)
        if present and checksum(present) == md5:
            continue
        part = place / f"{file}.gz.part"
        url = f"{source.mirror}{file}.gz"
        try:
            _fetch(url, part, progress)
        except DataError as error:
            raise DataError(f"{error}\nTo unpack a copy instead: robustdml data {name} --from ARCHIVE") from error
        found = checksum(part)
        if found != md5:
            part.unlink()
            raise DataError(
                f"{url} is not the published file: the MD5 of its content is {found}, expected {md5}. What arrived "
                f"was deleted; try again, or unpack a copy: robustdml data {name} --from ARCHIVE"
            )
        _install(part, place / f"{file}.gz", place / file)
    return place


def _install(part: Path, target: Path, other_form: Path) -> None:
    """Gives a verified file its final name. The other form (packed or not) is damaged or absent, and must not win."""
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)
    other_form.unlink(missing_ok=True)


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Appends to `part` what it lacks of the file at `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server ignores ranges and sends everything
            rest = response.headers.get("Content-Length")
            total = have + int(rest) if rest else None
            with part.open("ab" if have else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    progress(part.name.removesuffix(".part"), have, total)
                    if have > LARGEST_FILE:
                        break  # the checksum refuses it
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking; the checksum decides
        raise DataError(f"{url} answered {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} stopped after {have} bytes ({error}). Try again: the download continues there."
        ) from error
    if total is not None and have < total:
        raise DataError(f"{url} ended after {have} of {total} bytes. Try again: the download continues there.")


def unpack(name: str, archive: Path, root: Path | None = None) -> Path:
    """Takes the files of a published data set out of a zip or tar archive, and returns the folder they are in.

    A member is known by its file name (`train-images-idx3-ubyte`, with or without `.gz`) in any folder of the archive,
    and taken only if its content has the published MD5. Nothing is written under a name that the archive chose. Either
    all files are installed or none.

    Raises:
        ValueError: if nothing is published under this name.
        DataError: if the archive is missing, damaged, incomplete or unsafe (paths that leave it, links, devices, more
            than `LARGEST_ARCHIVE` bytes).
    """
    source = published(name)
    if not archive.is_file():
        raise DataError(
            f"There is no archive {archive}. Give a zip or tar file, or use robustdml data {name} --download"
        )
    place = places(name, root)[0]
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place) as scratch:
        try:
            genuine, others = _genuine_members(source, archive, Path(scratch))
        except _BROKEN_ARCHIVE as error:
            raise DataError(f"{archive} cannot be unpacked ({error}).") from error
        missing = [file for file in source.contents if file not in genuine]
        if missing:
            what = ", ".join(
                f"{file} (its content is not the published one)" if file in others else file for file in missing
            )
            raise DataError(f"{archive} lacks files of {name}: {what}.\n{how_to_get(name, root)}")
        for file, path in genuine.items():
            plain, packed = place / file, place / f"{file}.gz"
            target, other_form = (packed, plain) if path.suffix == ".gz" else (plain, packed)
            _install(path, target, other_form)
    return place


def _genuine_members(source: Published, archive: Path, scratch: Path) -> tuple[dict[str, Path], set[str]]:
    """Verified copies in `scratch` of the wanted files, and the names of wanted files with another content."""
    genuine: dict[str, Path] = {}
    others: set[str] = set()
    for number, (member, read) in enumerate(_members(archive)):
        file = member.removesuffix(".gz")
        if file not in source.contents or file in genuine:
            continue
        copy = scratch / f"{number}{'.gz' if member.endswith('.gz') else ''}"
        _copy(read, copy, archive)
        if checksum(copy) == source.contents[file]:
            genuine[file] = copy
        else:
            others.add(file)
            copy.unlink()
    return genuine, others


def _copy(read: Read, copy: Path, archive: Path) -> None:
    total = 0
    with copy.open("wb") as file:
        while chunk := read(_CHUNK):
            total += len(chunk)
            if total > LARGEST_FILE:
                raise DataError(f"{archive} holds a data file of more than {LARGEST_FILE >> 20} MiB; it was refused.")
            file.write(chunk)


def _members(archive: Path) -> Iterator[tuple[str, Read]]:
    """(file name, how to read its next bytes) of the regular files in an archive; refuses what has no place in one."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise DataError(f"{archive} is neither a zip nor a tar archive.")


def _zip_members(archive: Path) -> Iterator[tuple[str, Read]]:
    total = 0
    with zipfile.ZipFile(archive) as pack:
        for member in pack.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            total += member.file_size
            _check(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), total)
            if not member.is_dir():
                with pack.open(member) as stream:
                    yield PurePosixPath(member.filename).name, stream.read


def _tar_members(archive: Path) -> Iterator[tuple[str, Read]]:
    total = 0
    with tarfile.open(archive) as pack:
        for member in pack:
            total += member.size
            _check(archive, member.name, member.isreg() or member.isdir(), total)
            stream = pack.extractfile(member) if member.isreg() else None
            if stream:
                with stream:
                    yield PurePosixPath(member.name).name, stream.read


def _check(archive: Path, member: str, is_plain: bool, total: int) -> None:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive} was refused: its member {member!r} leads out of it.")
    if not is_plain:
        raise DataError(f"{archive} was refused: its member {member!r} is a link or a device.")
    if total > LARGEST_ARCHIVE:
        raise DataError(f"{archive} was refused: it unpacks to more than {LARGEST_ARCHIVE >> 20} MiB.")
