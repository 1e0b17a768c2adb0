"""CIFAR-10 and CIFAR-100: tiny photographs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from robustdml.data.decode import is_image
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet, Pixels, Split
from robustdml.data.layout import Layout, Remote, expect, load, walk
from robustdml.data.listing import Counts, class_folders, image_set, labelled
from robustdml.data.transforms import RandomCrop, Unchanged
from robustdml.data.unpickling import read_pickle

View = RandomCrop | Unchanged
PUBLISHED = RandomCrop(32, None, padding=4)
"""Training views of CIFAR: a margin of four zeros, a random part, mirrored half the time."""
_SHAPE = (3, 32, 32)
_HALVES = ("train", "test")


@dataclass(frozen=True)
class Files:
    """Names in the archives of the authors."""

    train: tuple[str, ...]
    test: str
    names: str
    labels: str
    class_names: str


_FILES_10 = Files(tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "labels", "label_names")
_FILES_100 = Files(("train",), "test", "meta", "fine_labels", "fine_label_names")


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 50 000 training and 10 000 test photographs of 10 kinds of things, 32x32.

    The authors' files are read without executing them; a folder with `train/CLASS/IMAGE` and `test/CLASS/IMAGE` is
    accepted too. The test images are both query set and gallery.

    Args:
        train: views for training.
        expected: training images, test images, training classes, test classes.
    """

    train: View = PUBLISHED
    expected: Counts = (50_000, 10_000, 10, 10)
    name: ClassVar[str] = "cifar10"
    shape: ClassVar[tuple[int, int, int]] = _SHAPE
    layout: ClassVar[Layout] = Layout(
        folders=("cifar-10-batches-py", "cifar10"),
        needed=((*_FILES_10.train, _FILES_10.test, _FILES_10.names), _HALVES),
        largest=1 << 30,
        instructions="cifar-10-python.tar.gz is at https://www.cs.toronto.edu/~kriz/cifar.html (170 MB).",
        remote=Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            size=256 << 20,
        ),
    )

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return self.expected[2]

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
        """60 000 images in memory.

        Raises:
            DataError: if files are missing, damaged or not those of CIFAR-10.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder of either form.

        Raises:
            DataError: if they are not those of CIFAR-10.
        """
        return _read(self.name, place, _FILES_10, self.train, self.expected)


@dataclass(frozen=True)
class Cifar100:
    """CIFAR-100 (Krizhevsky 2009): 50 000 training and 10 000 test photographs of 100 kinds of things, 32x32.

    As for CIFAR-10; labels are the fine ones.

    Args:
        train: views for training.
        expected: training images, test images, training classes, test classes.
    """

    train: View = PUBLISHED
    expected: Counts = (50_000, 10_000, 100, 100)
    name: ClassVar[str] = "cifar100"
    shape: ClassVar[tuple[int, int, int]] = _SHAPE
    layout: ClassVar[Layout] = Layout(
        folders=("cifar-100-python", "cifar100"),
        needed=((*_FILES_100.train, _FILES_100.test, _FILES_100.names), _HALVES),
        largest=1 << 30,
        instructions="cifar-100-python.tar.gz is at https://www.cs.toronto.edu/~kriz/cifar.html (169 MB).",
        remote=Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            size=256 << 20,
        ),
    )

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return self.expected[2]

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
        """60 000 images in memory.

        Raises:
            DataError: if files are missing, damaged or not those of CIFAR-100.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder of either form.

        Raises:
            DataError: if they are not those of CIFAR-100.
        """
        return _read(self.name, place, _FILES_100, self.train, self.expected)


def _read(name: str, place: Path, files: Files, train: View, expected: Counts) -> ImageSet:
    if all((place / half).is_dir() for half in _HALVES):
        return _of_folders(name, place, train, expected)
    halves = [[_batch(place / file, files.labels) for file in group] for group in (files.train, (files.test,))]
    names = _class_names(place / files.names, files.class_names)
    pixels = torch.cat([images for half in halves for images, _ in half])
    labels = torch.cat([numbers for half in halves for _, numbers in half])
    trained = sum(len(numbers) for _, numbers in halves[0])
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        raise DataError(f"{place}: labels {int(labels.min())} … {int(labels.max())}, but {len(names)} class names.")
    found = (trained, len(labels) - trained, len(labels[:trained].unique()), len(labels[trained:].unique()))
    expect(name, place, found, expected)
    rows = torch.arange(len(labels))
    split = Split(rows[:trained], rows[trained:], rows[trained:])
    return ImageSet(name, Pixels(pixels, train=train), labels, split, names)


def _batch(path: Path, key: str) -> tuple[UInt8[Tensor, "n 3 32 32"], Tensor]:
    content = read_pickle(path)
    pixels: Any = content.get("data")
    labels: Any = content.get(key)
    if not (isinstance(pixels, Tensor) and pixels.dim() == 2 and pixels.shape[1] == 3 * 32 * 32):
        raise DataError(
            f"{path} holds no array 'data' of rows of 3072 bytes; it has {', '.join(content) or 'nothing'}."
        )
    whole = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not whole or len(labels) != len(pixels):
        raise DataError(f"{path} holds no list {key!r} of one whole number for each of its {len(pixels)} images.")
    return pixels.reshape(-1, *_SHAPE), torch.tensor(labels, dtype=torch.long)


def _class_names(path: Path, key: str) -> tuple[str, ...]:
    names = read_pickle(path).get(key)
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise DataError(f"{path} holds no list {key!r} of class names.")
    return tuple(names)


def _of_folders(name: str, place: Path, train: View, expected: Counts) -> ImageSet:
    """train/CLASS/IMAGE and test/CLASS/IMAGE."""
    files = walk(place, is_image)
    trained, tested = (class_folders(files, f"{half}/") for half in _HALVES)
    paths, labels, names = labelled(trained, tested)
    return image_set(
        name, place, paths, labels, len(trained), names,
        train=train, test=Unchanged(), expected=expected, shape=_SHAPE, disjoint=False,
    )  # fmt: skip
