"""Where data files are looked for, and how missing ones are downloaded or unpacked."""

import gzip
import hashlib
import http.client
import io
import os
import shlex
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robustdml.data.archives import BROKEN, CHUNK, Read, members
from robustdml.data.errors import DataError, MissingData

LARGEST_FILE = 64 << 20
"""Bytes beyond which an unpacked file cannot be one of ours (the largest published one has 47 040 016)."""
LARGEST_ARCHIVE = 1 << 30
"""Unpacked bytes beyond which an archive is refused."""


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
        raise ValueError(f"{name} has no archive: its images are where its name says, or come with this package.")
    return PUBLISHED[name]


def roots(root: Path | None = None) -> list[Path]:
    """Data roots, first to last: `root`, `ROBUSTDML_DATA`, the user's cache (XDG_CACHE_HOME), `~/.torch`."""
    named = os.environ.get("ROBUSTDML_DATA", "")
    listed = [
        *([root.expanduser()] if root else []),
        *([Path(named).expanduser()] if named else []),
        cache_folder(),
        Path.home() / ".torch",
    ]
    return list(dict.fromkeys(listed))


def cache_folder(root: Path | None = None) -> Path:
    """Where what can be made again is kept: `root`, else the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification tells programs to ignore relative paths.
    return root.expanduser() if root else (cache if cache.is_absolute() else Path.home() / ".cache") / "robustdml"


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
    raise MissingData(
        f"{name} was not found. Looked for {files} (packed or not) in\n{looked}\n{how_to_get(name, root)}"
    )


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
            while chunk := stream.read(CHUNK):
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
            fetch(url, part, progress)
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


def fetch(url: str, part: Path, progress: Progress, largest: int = LARGEST_FILE) -> None:
    """Appends to `part` what it lacks of the file at `url`; stops beyond `largest` bytes, which a checksum refuses.

    Raises:
        DataError: if the server fails or the connection ends too early.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server ignores ranges and sends everything
            rest = response.headers.get("Content-Length")
            total = have + int(rest) if rest else None
            with part.open("ab" if have else "wb") as file:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    progress(part.name.removesuffix(".part"), have, total)
                    if have > largest:
                        return
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
        except BROKEN as error:
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
    for number, (path, _, read) in enumerate(members(archive, largest=LARGEST_ARCHIVE)):
        file = path.name.removesuffix(".gz")
        if file not in source.contents or file in genuine:
            continue
        copy = scratch / f"{number}{'.gz' if path.suffix == '.gz' else ''}"
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
        while chunk := read(CHUNK):
            total += len(chunk)
            if total > LARGEST_FILE:
                raise DataError(f"{archive} holds a data file of more than {LARGEST_FILE >> 20} MiB; it was refused.")
            file.write(chunk)
