"""Losses on triplets of embeddings."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter

from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.mining import Miner, Random
from robustdml.types import Triplets


@runtime_checkable
class Loss(Protocol):
    """A number to minimise for a batch of embeddings."""

    @property
    def distance(self) -> Distance:
        """The distance it trains, and with which the model is ranked and attacked."""
        ...

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"] | Float[Tensor, "b d"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The loss of raw embeddings `z`; labels are class labels or teacher embeddings."""
        ...

    def build(self, num_classes: int, dim: int) -> "Loss":
        """The loss with its weights; itself if it has none."""
        ...

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Weights of the loss (proxies, a learnable boundary) by optimiser group."""
        ...


@runtime_checkable
class TripletLoss(Loss, Protocol):
    """A loss that tuple-level defenses can work with."""

    @property
    def miner(self) -> Miner:
        """Finds the triplets unless the data fixes them."""
        ...

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The loss of given (anchor, positive, negative) embeddings, reduction included."""
        ...

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """Whether the negative of each triplet still contributes to the loss."""
        ...


def mean_of_active(h: Float[Tensor, "t"]) -> Float[Tensor, ""]:
    """The mean of the strictly positive entries of h; 0, with a graph, if there is none."""
    active = h > 0
    return h.clamp_min(0).sum() / active.sum().clamp_min(1)


def mine(
    loss: TripletLoss, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], *, draws: Draws, index: Tensor
) -> Triplets:
    """The triplets `loss` finds among the embeddings of a batch."""
    return loss.miner(z.detach(), labels, loss.distance, draws=draws, index=index)


@dataclass(frozen=True)
class Triplet:
    """mean_t [d(a, p) - d(a, n) + margin]_+, zeros included (FaceNet, arXiv:1503.03832).

    Args:
        margin: in units of the distance; published values are 0.2 on the sphere and 1.0 for raw Euclidean embeddings.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The mean over all triplets."""
        margin = self.margin if margin is None else margin
        return (hardness(self.distance, z[:, 0], z[:, 1], z[:, 2]) + margin).clamp_min(0).mean()

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """H + margin > 0."""
        return hardness(self.distance, z[:, 0], z[:, 1], z[:, 2]) + self.margin > 0

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """Mines unless `triplets` are given; gradient flows to all three roles."""
        triplets = triplets or mine(self, z, labels, draws=draws, index=index)
        return self.on_triplets(torch.stack(triplets.of(z), dim=1))

    def build(self, num_classes: int, dim: int) -> "Triplet":
        """Itself: it has no weights."""
        return self

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """None."""
        return {}


@dataclass(frozen=True)
class Contrastive:
    """mean_t d(a, p) + mean over the active of [margin - d(a, n)]_+ (Hadsell et al., 2006; distances not squared).

    Note: for the cosine distance RobRank publishes margin 0, which leaves no negative term and permits collapse; the
    default of 1.0 (similarity margin 0) is the usual loss.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 1.0

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The mean over all positive pairs plus the mean over the negative pairs inside the margin."""
        margin = self.margin if margin is None else margin
        attraction = self.distance.pairs(z[:, 0], z[:, 1]).mean()
        return attraction + mean_of_active(margin - self.distance.pairs(z[:, 0], z[:, 2]))

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """margin - d(a, n) > 0."""
        return self.margin - self.distance.pairs(z[:, 0], z[:, 2]) > 0

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """Mines unless `triplets` are given; gradient flows to all three roles."""
        triplets = triplets or mine(self, z, labels, draws=draws, index=index)
        return self.on_triplets(torch.stack(triplets.of(z), dim=1))

    def build(self, num_classes: int, dim: int) -> "Contrastive":
        """Itself: it has no weights."""
        return self

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """None."""
        return {}
