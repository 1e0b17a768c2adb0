"""From a decoded image to what the network sees: one view for tests, random views for training.

A transform works in two steps. `resize` takes an image of any size; `crop` cuts the result, a stack of one or many.
Random choices are numbers in [0, 1) that the caller draws, `numbers` of them for each view.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from PIL import Image

Range = tuple[float, float]


@runtime_checkable
class Transform(Protocol):
    """What is done to every image."""

    numbers: ClassVar[int]
    """Random numbers that one view takes."""

    @property
    def side(self) -> int | None:
        """Height and width of the result; None: those of the image."""
        ...

    @property
    def stored(self) -> int | None:
        """Height and width to which `resize` brings every image; None if that depends on image or draws."""
        ...

    def resize(self, image: "Image.Image", numbers: Sequence[float]) -> "Image.Image":
        """An image of the size that `crop` expects."""
        ...

    def crop(self, stack: Tensor, numbers: Float[Tensor, "b k"]) -> Tensor:
        """The part [b c side side] of each image [b c h w] that the network sees; values and type are kept."""
        ...


@dataclass(frozen=True)
class Unchanged:
    """The image as it is: nothing is resized, cut or mirrored."""

    numbers: ClassVar[int] = 0

    @property
    def side(self) -> int | None:
        """That of the image."""
        return None

    @property
    def stored(self) -> int | None:
        """That of the image."""
        return None

    def resize(self, image: "Image.Image", numbers: Sequence[float]) -> "Image.Image":
        """The image itself."""
        return image

    def crop(self, stack: Tensor, numbers: Float[Tensor, "b k"]) -> Tensor:
        """The images themselves."""
        return stack


@dataclass(frozen=True)
class CentreCrop:
    """The centre of the resized image (test view of the retrieval benchmarks; arXiv:2106.03614).

    Args:
        size: height and width of the result, in pixels.
        resize_to: height and width to which the image is brought first, bilinearly.
        shorter: only the shorter side becomes `resize_to`, the aspect ratio is kept (the protocol of IDML). Otherwise
            both sides do, whatever the aspect ratio.
    """

    size: int = 224
    resize_to: int = 256
    shorter: bool = False
    numbers: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_sizes(self.size, self.resize_to, 0)

    @property
    def side(self) -> int | None:
        """`size`."""
        return self.size

    @property
    def stored(self) -> int | None:
        """`resize_to`, unless the aspect ratio is kept."""
        return None if self.shorter else self.resize_to

    def resize(self, image: "Image.Image", numbers: Sequence[float]) -> "Image.Image":
        """The resized image."""
        if not self.shorter:
            return resized(image, self.resize_to, self.resize_to)
        low, high = sorted(image.size)
        longer = int(self.resize_to * high / low)
        portrait = image.width <= image.height
        return resized(image, *((longer, self.resize_to) if portrait else (self.resize_to, longer)))

    def crop(self, stack: Tensor, numbers: Float[Tensor, "b k"]) -> Tensor:
        """The centre; half a pixel is rounded to even."""
        height, width = stack.shape[-2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return stack[..., top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the resized image, mirrored half the time (training view; arXiv:2106.03614).

    Defaults are those of the 224x224 retrieval data sets; CIFAR takes `RandomCrop(32, None, padding=4)`.

    Args:
        size: height and width of the result, in pixels.
        resize_to: height and width to which the image is brought first, bilinearly, whatever its aspect ratio; None if
            it has the size already.
        padding: zeros put around it before cutting, in pixels.
        mirror: whether half of the views are mirrored left to right.
    """

    size: int = 224
    resize_to: int | None = 256
    padding: int = 0
    mirror: bool = True
    numbers: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check_sizes(self.size, self.resize_to, self.padding)

    @property
    def side(self) -> int | None:
        """`size`."""
        return self.size

    @property
    def stored(self) -> int | None:
        """`resize_to`."""
        return self.resize_to

    def resize(self, image: "Image.Image", numbers: Sequence[float]) -> "Image.Image":
        """The resized image."""
        return image if self.resize_to is None else resized(image, self.resize_to, self.resize_to)

    def crop(self, stack: Tensor, numbers: Float[Tensor, "b k"]) -> Tensor:
        """The part at a place uniform over all that fit."""
        if len(stack) == 0:
            return stack[..., : self.size, : self.size]
        padded = pad(stack, (self.padding,) * 4) if self.padding else stack
        height, width = padded.shape[-2:]
        top = (numbers[:, 0] * (height - self.size + 1)).long()
        left = (numbers[:, 1] * (width - self.size + 1)).long()
        mirrored = numbers[:, 2] < 0.5 if self.mirror else torch.zeros_like(top, dtype=torch.bool)
        views = [
            part[:, t : t + self.size, l : l + self.size]
            for part, t, l in zip(padded, top.tolist(), left.tolist(), strict=True)
        ]
        return torch.stack([view.flip(-1) if m else view for view, m in zip(views, mirrored.tolist(), strict=True)])


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of random area and aspect ratio, resized, mirrored half the time (training view of IDML).

    Up to ten parts are drawn until one fits into the image; else the largest centre with an allowed aspect ratio is
    taken.

    Args:
        size: height and width of the result, in pixels.
        area: smallest and largest share of the image's area.
        ratio: smallest and largest width over height; uniform in its logarithm.
        mirror: whether half of the views are mirrored left to right.
    """

    size: int = 224
    area: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    mirror: bool = True
    numbers: ClassVar[int] = 41  # ten times area, ratio, top and left; then the mirror

    def __post_init__(self) -> None:
        _check_sizes(self.size, None, 0)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"RandomResizedCrop needs 0 < area[0] <= area[1] <= 1, got {self.area}.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"RandomResizedCrop needs 0 < ratio[0] <= ratio[1], got {self.ratio}.")

    @property
    def side(self) -> int | None:
        """`size`."""
        return self.size

    @property
    def stored(self) -> int | None:
        """None: parts are cut from the image as it is on disk."""
        return None

    def box(self, width: int, height: int, numbers: Sequence[float]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the part that the numbers stand for."""
        for area, ratio, top, left in zip(numbers[:40:4], numbers[1:40:4], numbers[2:40:4], numbers[3:40:4]):
            target = width * height * (self.area[0] + area * (self.area[1] - self.area[0]))
            low, high = map(math.log, self.ratio)
            aspect = math.exp(low + ratio * (high - low))
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if 0 < w <= width and 0 < h <= height:
                y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
                return x, y, x + w, y + h
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h

    def resize(self, image: "Image.Image", numbers: Sequence[float]) -> "Image.Image":
        """The part, resized."""
        return resized(image.crop(self.box(*image.size, numbers)), self.size, self.size)

    def crop(self, stack: Tensor, numbers: Float[Tensor, "b k"]) -> Tensor:
        """Mirrored where the last number says so."""
        if not self.mirror:
            return stack
        return torch.where((numbers[:, -1] < 0.5)[:, None, None, None], stack.flip(-1), stack)


TRANSFORMS: dict[str, type[Transform]] = {
    cls.__name__: cls for cls in (Unchanged, CentreCrop, RandomCrop, RandomResizedCrop)
}


def resized(image: "Image.Image", height: int, width: int) -> "Image.Image":
    """The image brought to a size, bilinearly with antialiasing; itself if it has that size."""
    from PIL import Image

    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def check_views(name: str, train: Transform, test: Transform) -> None:
    """Refuse views of different sizes.

    Raises:
        ValueError: naming both.
    """
    if train.side != test.side:
        raise ValueError(
            f"{name}: training views have side {train.side}, test views {test.side}; give both transforms one size."
        )


def _check_sizes(size: int, resize_to: int | None, padding: int) -> None:
    if size < 1 or padding < 0:
        raise ValueError(f"a transform needs size >= 1 and padding >= 0 (pixels), got size={size}, padding={padding}.")
    if resize_to is not None and resize_to + 2 * padding < size:
        raise ValueError(f"a part of {size} pixels does not fit into an image resized to {resize_to}.")
