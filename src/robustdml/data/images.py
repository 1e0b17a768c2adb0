"""Image sets: labels, split and images, in memory or on disk, behind one class."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from robustdml.data.transforms import RandomCrop, Unchanged
from robustdml.draws import Draws


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of an image set. Where `query` and `gallery` share a row, the query must not retrieve it."""

    train: Int[Tensor, "t"]
    query: Int[Tensor, "q"]
    gallery: Int[Tensor, "g"]


@runtime_checkable
class Images(Protocol):
    """A source of equally large images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The images at `index` as evaluations see them: float32, pixels in [0, 1], on the CPU."""
        ...

    def fingerprint(self) -> str:
        """A checksum that changes when the images do."""
        ...


@runtime_checkable
class Augmented(Images, Protocol):
    """A source of images that training sees otherwise than evaluations do."""

    def views(self, index: Int[Tensor, "b"], slot: Int[Tensor, "b"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """The images at `index` as training sees them, e.g. cut and mirrored at random.

        `slot` numbers the places of an epoch: row i may depend on `draws`, `slot[i]` and its image alone.
        """
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images in memory, one byte per value.

    Attributes:
        values: integers in 0 … `top`.
        top: the value that stands for 1.0; a power of two keeps the float32 pixels exact.
        train: random views for training.

    Raises:
        ValueError: if training views have another size than the images.
    """

    values: UInt8[Tensor, "n c h w"]
    top: int = 255
    train: Unchanged | RandomCrop = Unchanged()  # noqa: RUF009  # frozen

    def __post_init__(self) -> None:
        side = self.train.side
        if side is not None and (side, side) != tuple(self.values.shape[2:]):
            height, width = self.values.shape[2:]
            raise ValueError(f"Pixels: images have {height}x{width} pixels, training views {side}x{side}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        c, h, w = self.values.shape[1:]
        return c, h, w

    def __len__(self) -> int:
        """The number of images."""
        return len(self.values)

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The images at `index`: float32, pixels in [0, 1]."""
        return self.values[index.to(self.values.device)].float() / self.top

    def views(self, index: Int[Tensor, "b"], slot: Int[Tensor, "b"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """Random views of the images at `index`."""
        numbers = draws.uniform("view", slot, (self.train.numbers,), torch.float64)
        return self.train.crop(self.values[index.to(self.values.device)], numbers).float() / self.top

    def fingerprint(self) -> str:
        """SHA-256 of shape, range, views and values."""
        views = () if isinstance(self.train, Unchanged) else (self.train,)
        digest = hashlib.sha256(repr((tuple(self.values.shape), self.top, *views)).encode())
        digest.update(self.values.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set ready for training and ranking.

    Attributes:
        name: what the command line calls it.
        images: where the pixels come from.
        labels: class of each image, a row of `class_names`; known without decoding an image.
        split: which images train, ask and answer.
        class_names: one name per class.
        note: what a reader must know about how split or images were made; "" if there is nothing.

    Raises:
        ValueError: if images, labels, class names and split do not fit together.
    """

    name: str
    images: Images
    labels: Int[Tensor, "n"]
    split: Split
    class_names: tuple[str, ...]
    note: str = ""

    def __post_init__(self) -> None:
        n = len(self.images)
        if len(self.labels) != n:
            raise ValueError(f"{self.name}: {n} images but {len(self.labels)} labels; give one label per image.")
        if n and not (int(self.labels.min()) >= 0 and int(self.labels.max()) < self.num_classes):
            found = f"{int(self.labels.min())} … {int(self.labels.max())}"
            raise ValueError(f"{self.name}: labels {found}, expected 0 … {self.num_classes - 1} (the class names).")
        for role, rows in (("train", self.split.train), ("query", self.split.query), ("gallery", self.split.gallery)):
            if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < n):
                raise ValueError(f"{self.name}: split.{role} has rows outside 0 … {n - 1}, the images.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.images.shape

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return len(self.class_names)

    @property
    def zero_shot(self) -> bool:
        """Whether no class of the queries or the gallery is seen in training."""
        seen = self.labels[self.split.train]
        asked = self.labels[torch.cat([self.split.query, self.split.gallery])]
        return not bool(torch.isin(asked, seen).any())

    def __len__(self) -> int:
        """The number of images of all splits together."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "c h w"], int, int]:
        """(image, label, index): a float32 image with pixels in [0, 1]; a negative `i` counts from the end.

        Raises:
            IndexError: if there is no such image.
        """
        index = range(len(self))[i]
        return self.batch(torch.tensor([index]))[0], int(self.labels[index]), index

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The images at `index`: float32, pixels in [0, 1], on the CPU.

        Raises:
            DataError: if an image on disk cannot be read.
        """
        return self.images.batch(index)

    def views(self, index: Int[Tensor, "b"], slot: Int[Tensor, "b"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """The images at `index` as training sees them: float32, pixels in [0, 1], on the CPU.

        They are those of `batch` unless `images` is `Augmented`.

        Args:
            slot: a number for each row that no other row of the epoch has (`Spc2.slots`).
            draws: a stream of this epoch.

        Raises:
            DataError: if an image on disk cannot be read.
        """
        images = self.images
        return images.views(index, slot, draws) if isinstance(images, Augmented) else images.batch(index)

    def fingerprint(self) -> str:
        """SHA-256 of what results depend on: pixels (or files and their sizes), labels, class names and split."""
        digest = hashlib.sha256(self.images.fingerprint().encode())
        digest.update(repr(self.class_names).encode())
        for rows in (self.labels, self.split.train, self.split.query, self.split.gallery):
            digest.update(f"|{len(rows)}|".encode())
            digest.update(rows.long().numpy().tobytes())
        return digest.hexdigest()
