"""Data sets that lie below a data root as their authors' archives unpack: where, how large, and how to get them."""

import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from robustdml.data.archives import BROKEN, CHUNK, copied, members
from robustdml.data.errors import DataError, MissingData
from robustdml.data.images import ImageSet
from robustdml.data.sources import Progress, fetch, roots, silent

_SHOWN = 5
_DEEPEST = 12


@dataclass(frozen=True)
class Remote:
    """An archive that can be fetched without an account.

    Attributes:
        url: its address.
        md5: checksum of the archive.
        size: its bytes, at most.
    """

    url: str
    md5: str
    size: int


@dataclass(frozen=True)
class Layout:
    """Files and folders of a data set below a data root.

    Attributes:
        folders: names that the folder has; archives are unpacked to the first.
        needed: files or folders in it without which it is not the data set, as alternatives: every entry of at least
            one tuple must be there.
        taken: further files and folders that an archive may hold.
        largest: bytes beyond which an unpacked archive cannot be this data set.
        instructions: where people find the files.
        remote: where `--download` finds them.
        in_parts: whether it comes in several archives, so that one may lack what another brings.
    """

    folders: tuple[str, ...]
    needed: tuple[tuple[str, ...], ...]
    largest: int
    instructions: str
    taken: tuple[str, ...] = ()
    remote: Remote | None = None
    in_parts: bool = False

    @property
    def entries(self) -> set[str]:
        """Everything that is taken out of an archive."""
        return {*self.taken, *(name for names in self.needed for name in names)}

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return [r / folder for r in roots(root) for folder in self.folders]

    def missing(self, place: Path) -> list[str]:
        """What a folder lacks, by the alternative that lacks least."""
        return min(([n for n in names if not (place / n).exists()] for names in self.needed), key=len)

    def find(self, name: str, root: Path | None = None) -> Path:
        """The first folder that lacks nothing of the data set.

        Raises:
            MissingData: if there is none.
            DataError: if none is complete; of those that hold a part, the first is named.
        """
        tried = self.places(root)
        begun = [p for p in tried if any((p / entry).exists() for entry in self.entries)]
        place = next((p for p in begun if not self.missing(p)), next(iter(begun), None))
        if place is None:
            looked = "\n".join(f"  {p}" for p in tried)
            wanted = " or ".join(", ".join(names) for names in self.needed)
            raise MissingData(f"{name} was not found. Looked for {wanted} in\n{looked}\n{self.obtain(name, root)}")
        lacking = self.missing(place)
        if lacking:
            raise DataError(f"{name} is incomplete: {place} lacks {', '.join(lacking)}.\n{self.obtain(name, root)}")
        return place

    def obtain(self, name: str, root: Path | None = None) -> str:
        """How to get what is missing."""
        where = f" --data-root {shlex.quote(str(root))}" if root else ""
        download = f"Download it with: robustdml data {name} --download{where}\n" if self.remote else ""
        return f"{download}Unpack a copy:    robustdml data {name} --from ARCHIVE{where}\n{self.instructions}"


@runtime_checkable
class Stored(Protocol):
    """A data set with a layout."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def layout(self) -> Layout:
        """Where its files are."""
        ...

    def read(self, place: Path) -> ImageSet:
        """The images in a folder of that layout.

        Raises:
            DataError: if they are not those of the data set.
        """
        ...


def load(spec: Stored, root: Path | None) -> ImageSet:
    """The images of a data set, wherever they are.

    Raises:
        DataError: if they are missing, damaged or not the published ones, with what to type.
    """
    place = spec.layout.find(spec.name, root)
    try:
        return spec.read(place)
    except DataError as error:
        raise DataError(f"{error}\n{spec.layout.obtain(spec.name, root)}") from error


def unpack(spec: Stored, archive: Path, root: Path | None = None) -> Path:
    """Takes a data set, or a part of it, out of an archive, checks it, and returns the folder it is in then.

    Members are known by the names that the layout lists, in any folder of the archive; others are left in it. Once
    nothing is missing, the images are listed and counted before anything gets its final name; entries that are there
    already are replaced. A single file that the layout lists (`cars_annos.mat`) is taken as it is.

    Raises:
        DataError: if the archive is missing, damaged, unsafe, or not this data set; nothing is changed then.
    """
    if not archive.is_file():
        raise DataError(f"There is no archive {archive}. {spec.layout.obtain(spec.name, root)}")
    place = spec.layout.places(root)[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place.parent) as scratch:
        fresh = Path(scratch) / "unpacked"
        fresh.mkdir()
        try:
            _extract(spec, archive, fresh)
        except BROKEN as error:
            raise DataError(f"{archive} cannot be unpacked ({type(error).__name__}: {error}).") from error
        found = sorted(path.name for path in fresh.iterdir())
        if not found:
            raise DataError(
                f"{archive} holds nothing of {spec.name}: none of {', '.join(sorted(spec.layout.entries)[:12])}.\n"
                f"{spec.layout.instructions}"
            )
        _check(spec, archive, fresh, place)
        _swap(found, fresh, place, Path(scratch))
    return place


def _extract(spec: Stored, archive: Path, fresh: Path) -> None:
    entries = spec.layout.entries
    if archive.name in entries:
        shutil.copyfile(archive, fresh / archive.name)
        return
    for member in members(archive, largest=spec.layout.largest):
        path = _below(member.path, entries)
        if path is None:
            continue
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            copied(member, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(f"{archive} was refused: it holds {path} twice.") from error


def _below(path: PurePosixPath, entries: set[str]) -> PurePosixPath | None:
    """The path from the first part that is an entry; None for what is hidden or not wanted."""
    start = next((i for i, part in enumerate(path.parts) if part in entries), None)
    if start is None or path.name.startswith("."):
        return None
    return PurePosixPath(*path.parts[start:])


def _check(spec: Stored, archive: Path, fresh: Path, place: Path) -> None:
    """List and count what would be there; entries of `place` that the archive lacks are linked to meanwhile."""
    linked = [entry for entry in spec.layout.entries if (place / entry).exists() and not (fresh / entry).exists()]
    for entry in linked:
        (fresh / entry).symlink_to((place / entry).resolve())
    try:
        lacking = spec.layout.missing(fresh)
        if lacking and not spec.layout.in_parts:
            raise DataError(f"it lacks {', '.join(lacking)}.")
        if not lacking:
            spec.read(fresh)
    except DataError as error:
        said = str(error).replace(str(fresh), archive.name)
        raise DataError(f"{archive} is not the {spec.name} that was published: {said} Nothing was changed.") from error
    finally:
        for entry in linked:
            (fresh / entry).unlink()


def _swap(names: list[str], fresh: Path, place: Path, scratch: Path) -> None:
    """Rename entries into place, all or none."""
    replaced = scratch / "replaced"
    replaced.mkdir()
    place.mkdir(exist_ok=True)
    done: list[str] = []
    try:
        for name in names:
            if (place / name).exists():
                (place / name).rename(replaced / name)
            done.append(name)
            (fresh / name).rename(place / name)
    except BaseException:
        for name in done:
            if (place / name).exists():
                (place / name).rename(scratch / f"undone-{name}")
            if (replaced / name).exists():
                (replaced / name).rename(place / name)
        raise


def download(spec: Stored, root: Path | None = None, progress: Progress = silent) -> Path:
    """Fetches the archive of a data set, compares its checksum, and unpacks it.

    Bytes arrive in a `.part` file beside the data set, which a later call continues; it is removed once unpacked.

    Raises:
        DataError: if there is no open mirror, or it fails or sends something else.
    """
    remote = spec.layout.remote
    if remote is None:
        raise DataError(
            f"{spec.name} has no mirror that needs no account and whose checksum is known.\n"
            f"{spec.layout.obtain(spec.name, root)}"
        )
    place = spec.layout.places(root)[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.parent / f"{PurePosixPath(remote.url).name}.part"
    fetch(remote.url, part, progress, largest=remote.size)
    found = _md5(part)
    if found != remote.md5:
        part.unlink()
        raise DataError(
            f"{remote.url} is not the published file: its MD5 is {found}, expected {remote.md5}. What arrived was "
            f"deleted; try again, or unpack a copy: robustdml data {spec.name} --from ARCHIVE"
        )
    unpack(spec, part, root)
    part.unlink()
    return place


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def expect(what: str, place: Path, found: Iterable[int], expected: Iterable[int]) -> None:
    """Compare (training images, test images, training classes, test classes) with those published.

    Raises:
        DataError: with both.
    """
    counts, wanted = tuple(found), tuple(expected)
    if counts != wanted:
        raise DataError(
            f"{place} holds {counts[0]} training and {counts[1]} test images of {counts[2]} and {counts[3]} classes; "
            f"{what} has {wanted[0]} and {wanted[1]} of {wanted[2]} and {wanted[3]}."
        )


def some(names: Iterable[str]) -> str:
    """The first names, for messages."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")


def walk(folder: Path, wanted: Callable[[str], bool]) -> dict[str, int]:
    """Path below `folder` → bytes of every file whose name is wanted, sorted; hidden files and folders are passed over.

    Raises:
        DataError: if folders lie deeper than any data set has them, as in a link to itself.
    """
    found: dict[str, int] = {}
    stack = [""]
    while stack:
        below = stack.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if below.count("/") > _DEEPEST:
                        raise DataError(f"{folder / below} has folders in folders without end; is it a link to itself?")
                    stack.append(f"{below}{entry.name}/")
                elif wanted(entry.name):
                    found[below + entry.name] = entry.stat().st_size
    return dict(sorted(found.items()))
