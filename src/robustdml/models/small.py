"""Small networks for 8x8 and 28x28 images, exactly as published where a paper uses them.

Convolutions have a bias; initialisation is PyTorch's default; no batch normalisation.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from robustdml.models.embedder import Embedder, Layers


@runtime_checkable
class Model(Protocol):
    """What a recipe names: an architecture without weights."""

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """A freshly initialised embedder for images of shape (c, h, w)."""
        ...


def at_least_one(model: object) -> None:
    """Raise if a size of an architecture (dim, width, num_classes) is not positive."""
    for name in ("dim", "width", "num_classes"):
        if getattr(model, name, 1) < 1:
            raise ValueError(f"{type(model).__name__} needs {name} >= 1, got {getattr(model, name)}.")


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, 2)


def c2f2_trunk(model: object, shape: tuple[int, int, int]) -> list[nn.Module]:
    """Two 5x5 convolutions with pooling, and the first linear layer, to 1024; `model` is who needs it."""
    channels, side = _check_side(model, shape, 4)
    quarter = side // 2 // 2
    return [
        *(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), _pool()),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), _pool()),
        *(nn.Flatten(), nn.Linear(64 * quarter * quarter, 1024)),
    ]


def _lenet_trunk(channels: int, side: int) -> list[nn.Module]:
    """Caffe's LeNet: no ReLU after the convolutions."""
    after = ((side - 4) // 2 - 4) // 2
    return [
        *(nn.Conv2d(channels, 20, 5), _pool()),
        *(nn.Conv2d(20, 50, 5), _pool()),
        *(nn.Flatten(), nn.Linear(50 * after * after, 500), nn.ReLU()),
    ]


def _check_side(model: object, shape: tuple[int, int, int], smallest: int) -> tuple[int, int]:
    channels, height, width = shape
    if height != width or height < smallest:
        raise ValueError(
            f"{type(model).__name__} needs square images of at least {smallest}x{smallest}, got {height}x{width}. "
            "Give the folder data set an image size, or use SmallConv or Pixels."
        )
    return channels, height


@dataclass(frozen=True)
class C2F2:
    """Two convolutions, two linear layers: the ranking network of RobRank for 28x28 (`rc2f2`)."""

    dim: int = 512

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 32, conv 64, linear 1024, linear `dim`."""
        return Layers(self.dim, *c2f2_trunk(self, shape), nn.ReLU(), nn.Linear(1024, self.dim))


@dataclass(frozen=True)
class C2F2Classifier:
    """C2F2 with dropout 0.4 and class scores (`cc2f2`): ranked with `Dot` on one prototype per class."""

    num_classes: int = 10

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 32, conv 64, linear 1024, dropout, linear `num_classes`."""
        head = [nn.ReLU(), nn.Dropout(0.4), nn.Linear(1024, self.num_classes)]
        return Layers(self.num_classes, *c2f2_trunk(self, shape), *head)


@dataclass(frozen=True)
class LeNet:
    """Caffe's LeNet for ranking (`rlenet`)."""

    dim: int = 128

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 20, conv 50, linear 500, linear `dim`."""
        channels, side = _check_side(self, shape, 16)
        return Layers(self.dim, *_lenet_trunk(channels, side), nn.Linear(500, self.dim))


@dataclass(frozen=True)
class LeNetClassifier:
    """Caffe's LeNet with class scores (`clenet`)."""

    num_classes: int = 10

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 20, conv 50, linear 500, linear `num_classes`."""
        channels, side = _check_side(self, shape, 16)
        return Layers(self.num_classes, *_lenet_trunk(channels, side), nn.Linear(500, self.num_classes))


@dataclass(frozen=True)
class Perceptron:
    """One linear layer on the pixels with class scores (`cslp`)."""

    num_classes: int = 10

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """Flatten and linear."""
        channels, height, width = shape
        return Layers(self.num_classes, nn.Flatten(), nn.Linear(channels * height * width, self.num_classes))


@dataclass(frozen=True)
class SmallConv:
    """Two 3x3 convolutions, one pooling, two linear layers: for the 8x8 digits."""

    dim: int = 32
    width: int = 32

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv `width`, conv 2 `width`, linear 128, linear `dim`."""
        channels, side = _check_side(self, shape, 2)
        half = side // 2
        return Layers(
            self.dim,
            *(nn.Conv2d(channels, self.width, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(self.width, 2 * self.width, 3, padding=1), nn.ReLU(), _pool()),
            *(nn.Flatten(), nn.Linear(2 * self.width * half * half, 128), nn.ReLU()),
            nn.Linear(128, self.dim),
        )


@dataclass(frozen=True)
class Pixels:
    """The identity map: pixels as embedding. The baseline row of every table; 1-Lipschitz."""

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """Flatten."""
        channels, height, width = shape
        return Layers(channels * height * width, nn.Flatten(), lipschitz=1.0)
