"""Miners for batches of pairs: one triplet per pair, whose first row is the anchor."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Cosine, Distance, Spherical
from robustdml.draws import Draws
from robustdml.mining.miner import (
    anchor_distances,
    anchors_of,
    fall_back,
    one_each,
    other_class,
    partner,
    same_class,
    signed_square,
)
from robustdml.types import Triplets


@dataclass(frozen=True)
class Random:
    """The pair partner and a uniformly drawn row of another class (spc2-random)."""

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        return one_each(partner(labels), other_class(labels), labels, draws, index)


@dataclass(frozen=True)
class SemiHard:
    """The pair partner and a negative farther than it by less than `margin` (FaceNet, arXiv:1503.03832).

    Candidates are D_ap < D_an < D_ap + margin, drawn uniformly; without one, any row of another class.
    """

    margin: float = 0.2

    def negatives(self, d: Float[Tensor, "t b"], labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
        """The rows from which the negative is drawn, fallbacks applied."""
        d_positive = d.gather(1, anchors_of(labels)[:, None] + 1)
        farther = signed_square(d_positive) < signed_square(d)
        found = ~same_class(labels) & farther & (d_positive - d + self.margin > 0)
        return fall_back(found, other_class(labels))

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        negatives = self.negatives(anchor_distances(z, distance), labels)
        return one_each(partner(labels), negatives, labels, draws, index)


@dataclass(frozen=True)
class SoftHard:
    """Positives farther than the nearest negative, negatives nearer than the farthest positive (Roth et al., 2020).

    Without a hard positive one of the class is drawn. `fallback="as-published"` lets that be the anchor itself, which
    RobDML's softhard source does; the default takes it only if the class has no other row.
    """

    fallback: Literal["other-row", "as-published"] = "other-row"

    def candidates(
        self, d: Float[Tensor, "t b"], labels: Int[Tensor, "b"]
    ) -> tuple[Bool[Tensor, "t b"], Bool[Tensor, "t b"]]:
        """The rows from which positive and negative are drawn, fallbacks applied."""
        same = same_class(labels)
        squared, infinity = signed_square(d), torch.inf
        itself = torch.arange(len(labels), device=d.device)[None, :] == anchors_of(labels)[:, None]
        of_class = same if self.fallback == "as-published" else fall_back(same & ~itself, same)
        nearest_negative = squared.masked_fill(same, infinity).amin(dim=1, keepdim=True)
        farthest_positive = squared.masked_fill(~of_class, -infinity).amax(dim=1, keepdim=True)
        hard = of_class & (squared > nearest_negative)
        positives = fall_back(hard, torch.where((~same).any(dim=1, keepdim=True), of_class, partner(labels)))
        negatives = fall_back(~same & (squared < farthest_positive), other_class(labels))
        return positives, negatives

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        positives, negatives = self.candidates(anchor_distances(z, distance), labels)
        return one_each(positives, negatives, labels, draws, index)


@dataclass(frozen=True)
class Hardest:
    """The pair partner and the nearest row of another class; any row if there is none."""

    def negatives(self, d: Float[Tensor, "t b"], labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
        """The single nearest negative (lowest row on ties), fallback applied."""
        same = same_class(labels)
        nearest = d.masked_fill(same, torch.inf).argmin(dim=1)
        found = torch.zeros_like(same).scatter(1, nearest[:, None], True) & ~same
        return fall_back(found, other_class(labels))

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        negatives = self.negatives(anchor_distances(z, distance), labels)
        return one_each(partner(labels), negatives, labels, draws, index)


_COINCIDENT = 1e-14
"""Distances that differ from 0 by their floor alone."""


@dataclass(frozen=True)
class DistanceWeighted:
    """Negatives drawn with the inverse density of distances on the unit sphere (Wu et al., arXiv:1706.07567).

    log q = (2 - D) ln d - (D - 3)/2 ln(1 - d^2/4), with d the Euclidean distance of unit vectors floored at `cutoff`,
    and none beyond `farthest`. A loss on cosines orders as that distance does and is mined by it.

    Note: `cutoff=0.0, farthest=2.0` is the published RobRank behaviour up to its degenerate cases; `as_published=True`
    reproduces those as well: 1 - cos stands for d, and a NaN, a coincident or an opposite negative makes the draw
    uniform over all rows of the batch, the anchor's class included.

    Raises:
        ValueError: for a distance that does not compare unit vectors, where the density is not defined.
    """

    cutoff: float = 0.5
    farthest: float = 1.4
    as_published: bool = False

    def weights(self, d: Float[Tensor, "t b"], labels: Int[Tensor, "b"], dim: int) -> Float[Tensor, "t b"]:
        """Probabilities of the negatives by distances on the unit sphere, each row summing to 1."""
        return self._published(d, labels, dim) if self.as_published else self._cut(d, labels, dim)

    def _cut(self, d: Tensor, labels: Tensor, dim: int) -> Tensor:
        negative = ~same_class(labels) & (d <= self.farthest)
        floored = d.double().clamp(max(self.cutoff, 1e-6), 2 - 1e-6)
        log_q = (2 - dim) * floored.log() - (dim - 3) / 2 * torch.log1p(-floored.square() / 4)
        log_q = log_q.masked_fill(~fall_back(negative, other_class(labels)), -torch.inf)
        return log_q.softmax(dim=1).to(d.dtype)

    def _published(self, d: Tensor, labels: Tensor, dim: int) -> Tensor:
        same = same_class(labels)
        d = d.masked_fill(d < _COINCIDENT, 0)  # the published distances are not floored
        log_q = (2 - dim) * d.log() - (dim - 3) / 2 * torch.log(1 - d.square() / 4)
        log_q = log_q.masked_fill(same, 0)
        q = (log_q - log_q.amax(dim=1, keepdim=True)).exp().masked_fill(same, 0).nan_to_num(nan=0.0)
        q = torch.where(q.sum(dim=1, keepdim=True) == 0, torch.full_like(q, 1e-7), q)
        return q / q.sum(dim=1, keepdim=True)

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        if not isinstance(distance, (Spherical, Cosine)):
            raise ValueError(
                "DistanceWeighted draws by the density of Euclidean distances on the unit sphere, and "
                f"{type(distance).__name__}() does not compare unit vectors. Use Spherical() as the distance, or "
                "another miner such as SemiHard()."
            )
        weights = self.weights(anchor_distances(z, distance if self.as_published else Spherical()), labels, z.shape[1])
        return one_each(partner(labels), weights, labels, draws, index)
