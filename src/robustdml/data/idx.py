"""MNIST and Fashion-MNIST from IDX files, laid out as torchvision does."""

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet, Pixels, Split
from robustdml.data.sources import PUBLISHED, find, how_to_get, opened, owner, places

_HOLDS = {2051: "images (magic number 2051)", 2049: "labels (magic number 2049)"}


@dataclass(frozen=True)
class Mnist:
    """MNIST (LeCun et al. 1998): 60 000 training and 10 000 test images of handwritten digits, 28x28 grey."""

    name: ClassVar[str] = "mnist"
    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    split_sizes: ClassVar[tuple[int, int]] = PUBLISHED["mnist"].sizes
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return places(self.name, root)

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return how_to_get(self.name, root)

    def load(self, root: Path | None = None) -> ImageSet:
        """70 000 images in memory: the training images, then the test images, which are both query set and gallery.

        Raises:
            DataError: if files are missing, damaged, or not those of MNIST.
        """
        return load_idx(self.name, self.class_names, root)


@dataclass(frozen=True)
class Fashion:
    """Fashion-MNIST (arXiv:1708.07747): 60 000 training and 10 000 test images of clothes, 28x28 grey."""

    name: ClassVar[str] = "fashion"
    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    split_sizes: ClassVar[tuple[int, int]] = PUBLISHED["fashion"].sizes
    class_names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return places(self.name, root)

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return how_to_get(self.name, root)

    def load(self, root: Path | None = None) -> ImageSet:
        """70 000 images in memory: the training images, then the test images, which are both query set and gallery.

        Raises:
            DataError: if files are missing, damaged, or not those of Fashion-MNIST.
        """
        return load_idx(self.name, self.class_names, root)


def load_idx(name: str, class_names: tuple[str, ...], root: Path | None) -> ImageSet:
    """A published pair of training and test files as one image set.

    Raises:
        DataError: if files are missing, damaged, or not the published ones.
    """
    files = find(name, root)
    try:
        halves = [_half(name, part, size, files) for part, size in zip(("train", "t10k"), PUBLISHED[name].sizes)]
    except DataError as error:
        raise DataError(f"{error}\n{how_to_get(name, root)}") from error
    pixels = torch.cat([images for images, _ in halves])[:, None]
    labels = torch.cat([labels for _, labels in halves]).long()
    train, test = torch.arange(len(labels)).split(list(PUBLISHED[name].sizes))
    return ImageSet(name, Pixels(pixels), labels, Split(train, test, test), class_names)


def _half(
    name: str, part: str, size: int, files: dict[str, Path]
) -> tuple[UInt8[Tensor, "n 28 28"], UInt8[Tensor, "n"]]:
    image_file, label_file = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images, image_md5 = read_idx(files[image_file], (size, 28, 28))
    labels, label_md5 = read_idx(files[label_file], (size,))
    wrong = (labels > 9).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(f"{files[label_file]}: label {int(labels[first])} at position {first}, expected labels 0 … 9.")
    for file, md5 in ((image_file, image_md5), (label_file, label_md5)):
        expected = PUBLISHED[name].contents[file]
        if md5 != expected:
            found = f"it is {owner(md5)}" if owner(md5) else f"the MD5 of its content is {md5}, expected {expected}"
            raise DataError(f"{files[file]} is not {file} of {name}: {found}.")
    return images, labels


def read_idx(path: Path, shape: tuple[int, ...]) -> tuple[UInt8[Tensor, "..."], str]:
    """The bytes of an IDX file of exactly this shape, and the MD5 of its unpacked content.

    An IDX file is four bytes of magic number (2048 + number of dimensions, for bytes), four per dimension, most
    significant first, then the values.

    Raises:
        DataError: if the file is damaged or has another type, shape or length.
    """
    magic, size = 2048 + len(shape), prod(shape)
    with opened(path) as stream:
        header = stream.read(4 + 4 * len(shape))
        found, *dimensions = np.frombuffer(header[: len(header) // 4 * 4], ">i4").tolist() or [0]
        if found != magic:
            what = _HOLDS.get(found, f"no IDX data (it starts with {header[:4]!r})")
            raise DataError(f"{path} holds {what}, expected {_HOLDS[magic]}.")
        if tuple(dimensions) != shape:
            raise DataError(f"{path} holds {_times(dimensions)} values, expected {_times(shape)}.")
        values = stream.read(size)
        if len(values) < size:
            raise DataError(f"{path} is truncated: found {len(values)} of {size} values.")
        if stream.read(1):
            raise DataError(f"{path} continues after the {size} values that it announces.")
    md5 = hashlib.md5(header, usedforsecurity=False)
    md5.update(values)
    return torch.from_numpy(np.frombuffer(values, np.uint8).copy()).reshape(shape), md5.hexdigest()


def _times(dimensions: list[int] | tuple[int, ...]) -> str:
    return " x ".join(map(str, dimensions)) or "no"
