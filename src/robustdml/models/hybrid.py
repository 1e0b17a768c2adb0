"""Networks with an embedding head and a class head: one vector [embedding | class scores] per image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustdml.models.backbones import Backbone
from robustdml.models.embedder import Embedder
from robustdml.models.small import at_least_one, c2f2_trunk


class HybridEmbedder(Embedder):
    """An embedding head and a class head on one representation, packed one after the other."""

    def __init__(self, dim: int, trunk: nn.Module, embedding_head: nn.Module, class_head: nn.Module) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = trunk
        self.embedding_head = embedding_head
        self.class_head = class_head

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """[embedding | class scores]; `distance.Leading` ranks by the embedding."""
        return torch.cat(self.heads(images)[1:], dim=1)

    def heads(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Representation [b r], embedding [b d] and class scores [b classes]."""
        representation = self.trunk(images)
        return representation, self.embedding_head(representation), self.class_head(representation)


@dataclass(frozen=True)
class C2F2Hybrid:
    """C2F2 with an embedding head and a class head (`hc2f2`)."""

    dim: int = 512
    num_classes: int = 10

    def __post_init__(self) -> None:
        at_least_one(self)

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """The trunk ends before its last ReLU, which each head owns."""
        return HybridEmbedder(
            self.dim + self.num_classes,
            nn.Sequential(*c2f2_trunk(self, shape)),
            nn.Sequential(nn.ReLU(), nn.Linear(1024, self.dim)),
            nn.Sequential(nn.ReLU(), nn.Dropout(0.4), nn.Linear(1024, self.num_classes)),
        )


@dataclass(frozen=True)
class BackboneHybrid:
    """The pooled features of a backbone with an embedding head and a class head (`hres18`).

    Args:
        name, batchnorm: as for `Backbone`.
        num_classes: of all splits of the data set together, since labels are global.

    Note:
        RobRank feeds this network pixels without ImageNet's normalisation, although its trunk is pretrained with it;
        here they are normalised.
    """

    name: str = "resnet18"
    dim: int = 512
    num_classes: int = 200
    batchnorm: Literal["train", "frozen-statistics"] = "train"

    def build(self, shape: tuple[int, int, int]) -> Embedder:
        """ReLU and a linear layer to the embedding; ReLU, dropout 0.2 and a linear layer to the class scores."""
        trunk = self._trunk.build(shape)
        return HybridEmbedder(
            self.dim + self.num_classes,
            trunk,
            nn.Sequential(nn.ReLU(), nn.Linear(trunk.dim, self.dim)),
            nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(trunk.dim, self.num_classes)),
        )

    @property
    def frozen(self) -> bool:
        """Whether batch statistics are frozen."""
        return self.batchnorm == "frozen-statistics"

    def published(self, embedder: Embedder, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Weights of the trunk."""
        assert isinstance(embedder, HybridEmbedder)
        assert isinstance(embedder.trunk, Embedder)
        return {f"trunk.{n}": t for n, t in self._trunk.published(embedder.trunk, tensors).items()}

    @property
    def _trunk(self) -> Backbone:
        return Backbone(self.name, 0, self.batchnorm)


HYBRIDS = (C2F2Hybrid, BackboneHybrid)
"""Models that pack class scores behind an embedding of `dim` numbers."""
