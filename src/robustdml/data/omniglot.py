"""Omniglot: handwritten characters of many alphabets."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustdml.data.decode import is_image
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, load, some, walk
from robustdml.data.listing import Counts, image_set, labelled
from robustdml.data.stores import Directory, Several, Store, zipped
from robustdml.data.transforms import CentreCrop

_SIZE = 28


@dataclass(frozen=True)
class Omniglot:
    """Omniglot (Lake et al. 2015): 1623 characters of 50 alphabets, each drawn by 20 people; classes are characters.

    The 30 background alphabets train; the 20 evaluation alphabets are queries and gallery. Strokes are black on white.
    The archives `images_background.zip` and `images_evaluation.zip` are read in place; unpacked folders are read too.

    Args:
        image_size: height and width; the drawings have 105x105 pixels and are resized.
        expected: training images, test images, training classes, test classes.
    """

    image_size: int = _SIZE
    expected: Counts = (19_280, 13_180, 964, 659)
    name: ClassVar[str] = "omniglot"
    layout: ClassVar[Layout] = Layout(
        folders=("omniglot", "omniglot-py"),
        needed=tuple(
            (train, test)
            for train in ("images_background", "images_background.zip")
            for test in ("images_evaluation", "images_evaluation.zip")
        ),
        in_parts=True,
        largest=1 << 29,
        instructions=(
            "images_background.zip and images_evaluation.zip are in the folder python of "
            "https://github.com/brendenlake/omniglot. Give both to --from, one after the other."
        ),
    )

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return sum(self.expected[2:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return 1, self.image_size, self.image_size

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Published numbers of training and test images."""
        return self.expected[:2]

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return self.layout.places(root)

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return self.layout.obtain(self.name, root)

    def load(self, root: Path | None = None) -> ImageSet:
        """Lists the images; they are decoded when asked for.

        Raises:
            DataError: if files are missing or not those of Omniglot.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `omniglot`.

        Raises:
            DataError: if they are not those of Omniglot.
        """
        return _read(self.name, place, ("images_background", "images_evaluation"), self.image_size, self.expected)


@dataclass(frozen=True)
class OmniglotSmall:
    """The two small background sets of Omniglot: alphabets of the first train, further ones of the second test.

    Alphabets of `images_background_small2` that `images_background_small1` has too are left out. As for Omniglot, files
    are read from the archives or from folders.

    Args:
        image_size: height and width; the drawings have 105x105 pixels and are resized.
        expected: training images, test images, training classes, test classes.
    """

    image_size: int = _SIZE
    expected: Counts = (2720, 2120, 136, 106)
    name: ClassVar[str] = "omniglot-small"
    layout: ClassVar[Layout] = Layout(
        folders=("omniglot", "omniglot-py"),
        needed=tuple(
            (f"images_background_small1{one}", f"images_background_small2{two}")
            for one in ("", ".zip")
            for two in ("", ".zip")
        ),
        in_parts=True,
        largest=1 << 29,
        instructions=(
            "images_background_small1.zip and images_background_small2.zip are in the folder python of "
            "https://github.com/brendenlake/omniglot. Give both to --from, one after the other."
        ),
    )

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return sum(self.expected[2:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return 1, self.image_size, self.image_size

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of training and test images."""
        return self.expected[:2]

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return self.layout.places(root)

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return self.layout.obtain(self.name, root)

    def load(self, root: Path | None = None) -> ImageSet:
        """Lists the images; they are decoded when asked for.

        Raises:
            DataError: if files are missing or not those of Omniglot.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `omniglot`.

        Raises:
            DataError: if they are not those of Omniglot.
        """
        halves = ("images_background_small1", "images_background_small2")
        return _read(self.name, place, halves, self.image_size, self.expected, skip_seen=True)


def _read(
    name: str, place: Path, halves: tuple[str, str], size: int, expected: Counts, *, skip_seen: bool = False
) -> ImageSet:
    stores: list[Store] = []
    listed: list[list[tuple[str, str]]] = []
    for half in halves:
        folder, archive = place / half, place / f"{half}.zip"
        if folder.is_dir():
            stores.append(Directory(folder))
            files = list(walk(folder, is_image))
        else:
            packed = zipped(archive)
            stores.append(packed)
            files = [file for file in packed.members if is_image(file)]
        listed.append(_characters(files, half, archive))
    train, test = listed
    if skip_seen:
        seen = {character.split("/")[0] for _, character in train}
        test = [(file, character) for file, character in test if character.split("/")[0] not in seen]
    paths, labels, names = labelled(
        [(f"{halves[0]}:{file}", character) for file, character in train],
        [(f"{halves[1]}:{file}", character) for file, character in test],
    )
    return image_set(
        name, place, paths, labels, len(train), names,
        train=CentreCrop(size, size), test=CentreCrop(size, size), expected=expected,
        store=Several(dict(zip(halves, stores))), shape=(1, size, size),
    )  # fmt: skip


def _characters(files: list[str], half: str, archive: Path) -> list[tuple[str, str]]:
    """(file, alphabet/character) of …/ALPHABET/CHARACTER/IMAGE, by character and file name."""
    shallow = [file for file in files if file.count("/") < 2]
    if shallow:
        raise DataError(f"{archive}: images of {half} lie in ALPHABET/CHARACTER/; these do not: {some(shallow)}.")
    return sorted(((file, "/".join(file.split("/")[-3:-1])) for file in files), key=lambda pair: pair[::-1])
