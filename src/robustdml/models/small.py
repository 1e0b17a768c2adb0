"""Small networks for 8x8 and 28x28 images, exactly as published where a paper uses them.

Convolutions have a bias; initialisation is PyTorch's default; no batch normalisation.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from robustdml.models.embedder import Embedder, Layers


@runtime_checkable
class Model(Protocol):
    """What a recipe names: an architecture without weights."""

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """A freshly initialised embedder for images of shape (c, h, w)."""
        ...


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, 2)


def _c2f2_trunk(channels: int, side: int) -> list[nn.Module]:
    """Two 5x5 convolutions with pooling, and the first linear layer, to 1024."""
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

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 32, conv 64, linear 1024, linear `dim`."""
        channels, side = _check_side(self, shape, 4)
        return Layers(self.dim, *_c2f2_trunk(channels, side), nn.ReLU(), nn.Linear(1024, self.dim))


@dataclass(frozen=True)
class C2F2Classifier:
    """C2F2 with dropout 0.4 and class scores (`cc2f2`): ranked with `Dot` on one prototype per class."""

    num_classes: int = 10

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 32, conv 64, linear 1024, dropout, linear `num_classes`."""
        channels, side = _check_side(self, shape, 4)
        head = [nn.ReLU(), nn.Dropout(0.4), nn.Linear(1024, self.num_classes)]
        return Layers(self.num_classes, *_c2f2_trunk(channels, side), *head)


@dataclass(frozen=True)
class LeNet:
    """Caffe's LeNet for ranking (`rlenet`)."""

    dim: int = 128

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 20, conv 50, linear 500, linear `dim`."""
        channels, side = _check_side(self, shape, 16)
        return Layers(self.dim, *_lenet_trunk(channels, side), nn.Linear(500, self.dim))


@dataclass(frozen=True)
class LeNetClassifier:
    """Caffe's LeNet with class scores (`clenet`)."""

    num_classes: int = 10

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """conv 20, conv 50, linear 500, linear `num_classes`."""
        channels, side = _check_side(self, shape, 16)
        return Layers(self.num_classes, *_lenet_trunk(channels, side), nn.Linear(500, self.num_classes))


@dataclass(frozen=True)
class Perceptron:
    """One linear layer on the pixels with class scores (`cslp`)."""

    num_classes: int = 10

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """Flatten and linear."""
        channels, height, width = shape
        return Layers(self.num_classes, nn.Flatten(), nn.Linear(channels * height * width, self.num_classes))


class HybridEmbedder(Embedder):
    """An embedding head and a class head on one representation; the embedding is what `forward` returns."""

    def __init__(self, dim: int, trunk: nn.Module, embedding_head: nn.Module, class_head: nn.Module) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = trunk
        self.embedding_head = embedding_head
        self.class_head = class_head

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The embeddings."""
        return self.heads(images)[1]

    def heads(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Representation [b r], embedding [b d] and class scores [b classes]."""
        representation = self.trunk(images)
        return representation, self.embedding_head(representation), self.class_head(representation)


@dataclass(frozen=True)
class C2F2Hybrid:
    """C2F2 with an embedding head and a class head (`hc2f2`)."""

    dim: int = 512
    num_classes: int = 10

    def build(self, shape: tuple[int, int, int]) -> HybridEmbedder:
        """The trunk ends before its last ReLU, which each head owns."""
        channels, side = _check_side(self, shape, 4)
        return HybridEmbedder(
            self.dim,
            nn.Sequential(*_c2f2_trunk(channels, side)),
            nn.Sequential(nn.ReLU(), nn.Linear(1024, self.dim)),
            nn.Sequential(nn.ReLU(), nn.Dropout(0.4), nn.Linear(1024, self.num_classes)),
        )


@dataclass(frozen=True)
class SmallConv:
    """Two 3x3 convolutions, one pooling, two linear layers: for the 8x8 digits."""

    dim: int = 32
    width: int = 32

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
