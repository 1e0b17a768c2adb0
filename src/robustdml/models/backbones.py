"""Large backbones by name, from timm, torchvision and our own files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustdml.models.embedder import Embedder, fill
from robustdml.models.pretrained import SOURCES, Source, Timm, downloaded, fitted
from robustdml.models.wrapped import Normalised, Wrapped, width_of, wrap
from robustdml.serial import nearest

__all__ = ["Backbone", "Normalised", "Wrapped", "embedding_width", "source_of", "timm_embedder", "wrap"]


@dataclass(frozen=True)
class Backbone:
    """A network for ImageNet-sized images with one linear layer to the embedding (extra `vision`).

    It is built with random weights; `Recipe.start = Pretrained()` begins with published ones. As a classifier, `dim` is
    the number of classes.

    Args:
        name: resnet18, resnet50, resnet101, resnet152, mnasnet0_5, mnasnet1_0, mnasnet1_3, efficientnet_b0,
            efficientnet_b4, swin_tiny, swin_small, swin_base, swin_large, bninception, or "timm:" and any name of timm.
        dim: width of the embedding; 0 for the pooled features themselves.
        batchnorm: "train" with statistics of each batch, or "frozen-statistics": the running statistics are always used
            and never updated, while scale and shift are trained. Frozen ones make sense with published weights only.
    """

    name: str = "resnet18"
    dim: int = 512
    batchnorm: Literal["train", "frozen-statistics"] = "train"

    def __post_init__(self) -> None:
        source_of(self.name)
        if self.dim < 0:
            raise ValueError(f"Backbone needs dim >= 0 (0: pooled features), got {self.dim}.")

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """For grey or colour images; the head is part of the network that its library makes.

        Raises:
            ImportError: if the extra is not installed.
            ValueError: if the network does not take such images, or makes maps of them.
        """
        source, side = source_of(self.name), _side(self.name, shape)
        network = source.network(self.dim, side)
        embedder = Normalised(source.normalise(network), network, self.dim, frozen_statistics=self.frozen)
        embedder.dim = embedding_width(embedder, self.name, shape)
        return embedder

    @property
    def frozen(self) -> bool:
        """Whether batch statistics are frozen."""
        return self.batchnorm == "frozen-statistics"

    def published(self, embedder: Embedder, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """See `Pretrainable`."""
        assert isinstance(embedder, Normalised)
        source = source_of(self.name)
        found = downloaded(source.download, self.name) if tensors is None else tensors
        network = embedder.inner
        head = head_of(source, self.dim)
        fitting = fitted(source.adapted(found, network), network.state_dict(), head, self.name)
        return {f"inner.{name}": t for name, t in fitting.items()}


def source_of(name: str) -> Source:
    """Where a backbone comes from.

    Raises:
        ValueError: if no backbone is called so.
    """
    if name.startswith("timm:") and len(name) > 5:
        return Timm(name.removeprefix("timm:"))
    if name not in SOURCES:
        raise ValueError(f"there is no backbone {name!r}. {nearest(name, [*SOURCES, 'timm:NAME'])}")
    return SOURCES[name]


def head_of(source: Source, dim: int) -> set[str]:
    """Names of the weights that make the embedding: those whose shape depends on its width."""
    if dim == 0:
        return set()
    with torch.device("meta"):
        one, other = (source.network(width, source.side()).state_dict() for width in (dim, dim + 1))
    return {n for n in one if one[n].shape != other[n].shape}


def _side(name: str, shape: tuple[int, int, int]) -> int:
    channels, height, width = shape
    if channels not in (1, 3) or height != width:
        raise ValueError(
            f"{name} needs square grey or colour images, got {channels} channels of {height}x{width}. Give the folder "
            "data set an image size."
        )
    return height


def embedding_width(embedder: nn.Module, name: str, shape: tuple[int, int, int]) -> int:
    """The width of what a network makes of two grey images.

    Raises:
        ValueError: if it is not one vector per image, or the images are too small.
    """
    try:
        return width_of(embedder, embedder, shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} does not take images of {shape[1]}x{shape[2]} ({said}).") from error


def timm_embedder(name: str, shape: tuple[int, int, int] = (3, 224, 224), *, pretrained: bool = True) -> Embedder:
    """The pooled features of a timm model, with the input normalisation of its weights.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if timm has no such model, or its weights cannot be had.
    """
    model = Backbone(f"timm:{name}", dim=0)
    embedder = model.build(shape)
    if pretrained:
        fill(embedder, model.published(embedder, None))
    return embedder
