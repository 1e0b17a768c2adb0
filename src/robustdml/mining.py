"""Miners: which rows of a batch play positive and negative for each anchor.

In an SPC-2 batch rows 2t and 2t + 1 are a same-class pair; the even rows are the anchors. Every miner states the
weights with which it draws; `draw` turns them into triplets. Masks never depend on NaN: distances are clamped at 0.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.types import Triplets, arange_like


@runtime_checkable
class Miner(Protocol):
    """Chooses one triplet per anchor. `index` [b] are data set indices, the counters of the draws."""

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Triplets of batch rows; no gradient."""
        ...


def anchors_of(labels: Int[Tensor, "b"]) -> Int[Tensor, "t"]:
    """The even rows of an SPC-2 batch."""
    return torch.arange(0, len(labels), 2, device=labels.device)


def same_class(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor the rows of its class, itself included."""
    return labels[anchors_of(labels)][:, None] == labels[None, :]


def partner(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor its pair partner alone."""
    rows = torch.arange(len(labels), device=labels.device)
    return rows[None, :] == anchors_of(labels)[:, None] + 1


def other_class(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor the rows of other classes; any row of the batch if there are none."""
    return fall_back(~same_class(labels), torch.ones_like(same_class(labels)))


def fall_back(mask: Bool[Tensor, "t b"], instead: Bool[Tensor, "t b"]) -> Bool[Tensor, "t b"]:
    """Rows of `mask` without a true entry are replaced by those of `instead`."""
    return torch.where(mask.any(dim=1, keepdim=True), mask, instead)


def anchor_distances(z: Float[Tensor, "b d"], distance: Distance) -> Float[Tensor, "t b"]:
    """Distances from the anchors to all rows, without gradient."""
    with torch.no_grad():
        return distance.matrix(z[::2], z)


def signed_square(d: Float[Tensor, "t b"]) -> Float[Tensor, "t b"]:
    """d |d|, which orders as d does: published miners compare squares, and distances of `Dot` may be negative."""
    return d * d.abs()


def draw_one(
    purpose: str, weights: Float[Tensor, "t b"] | Bool[Tensor, "t b"], draws: Draws, index: Int[Tensor, "t"]
) -> Int[Tensor, "t"]:
    """One column per row, with probability proportional to `weights`."""
    if weights.dtype == torch.bool:
        return draws.one_of(purpose, index, weights)
    cumulated = weights.double().cumsum(dim=1)
    level = draws.uniform(purpose, index, (1,), torch.float64) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, level, right=True)[:, 0].clamp_max(weights.shape[1] - 1)


def _triplets(positives: Tensor, negatives: Tensor, labels: Tensor, draws: Draws, index: Tensor) -> Triplets:
    anchors = anchors_of(labels)
    counter = index[anchors]
    return Triplets(
        anchors,
        draw_one("positive", positives, draws, counter),
        draw_one("negative", negatives, draws, counter),
    )


@dataclass(frozen=True)
class Random:
    """The pair partner and a uniformly drawn row of another class (spc2-random)."""

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        return _triplets(partner(labels), other_class(labels), labels, draws, index)


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
        return _triplets(partner(labels), negatives, labels, draws, index)


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
        return _triplets(positives, negatives, labels, draws, index)


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
        return _triplets(partner(labels), negatives, labels, draws, index)


@dataclass(frozen=True)
class DistanceWeighted:
    """Negatives drawn with the inverse density of distances on the unit sphere (Wu et al., arXiv:1706.07567).

    log q = (2 - D) ln d - (D - 3)/2 ln(1 - d^2/4), with d floored at `cutoff` and none beyond `farthest`.

    `cutoff=0.0, farthest=2.0` is the published RobRank behaviour up to its degenerate cases; `as_published=True`
    reproduces those as well: a NaN or a coincident negative makes the draw uniform over all rows of the batch.

    Raises:
        ValueError: for embeddings off the unit sphere (d > 2), where the density is not defined.
    """

    cutoff: float = 0.5
    farthest: float = 1.4
    as_published: bool = False

    def weights(self, d: Float[Tensor, "t b"], labels: Int[Tensor, "b"], dim: int) -> Float[Tensor, "t b"]:
        """Probabilities of the negatives, each row summing to 1."""
        return self._published(d, labels, dim) if self.as_published else self._cut(d, labels, dim)

    def _cut(self, d: Tensor, labels: Tensor, dim: int) -> Tensor:
        if float(d.max()) > 2 + 1e-3:
            raise ValueError(
                f"DistanceWeighted needs distances on the unit sphere, in [0, 2], and got one of {float(d.max()):.3g}. "
                "Use Spherical() or Cosine() as the distance, or another miner."
            )
        negative = ~same_class(labels) & (d <= self.farthest)
        floored = d.double().clamp(max(self.cutoff, 1e-6), 2 - 1e-6)
        log_q = (2 - dim) * floored.log() - (dim - 3) / 2 * torch.log1p(-floored.square() / 4)
        log_q = log_q.masked_fill(~fall_back(negative, other_class(labels)), -torch.inf)
        return log_q.softmax(dim=1).to(d.dtype)

    def _published(self, d: Tensor, labels: Tensor, dim: int) -> Tensor:
        same = same_class(labels)
        log_q = (2 - dim) * d.log() - (dim - 3) / 2 * torch.log(1 - d.square() / 4)
        log_q = log_q.masked_fill(same, 0)
        q = (log_q - log_q.amax(dim=1, keepdim=True)).exp().masked_fill(same, 0).nan_to_num(nan=0.0)
        q = torch.where(q.sum(dim=1, keepdim=True) == 0, torch.full_like(q, 1e-7), q)
        return q / q.sum(dim=1, keepdim=True)

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        weights = self.weights(anchor_distances(z, distance), labels, z.shape[1])
        return _triplets(partner(labels), weights, labels, draws, index)


@dataclass(frozen=True)
class RandomTriplet:
    """For batches without pairs: as many random (a, p, n) as rows, a != p of one class and n of another.

    Without replacement while there are enough. If no class has two rows, each row is its own positive.
    """

    def population(self, labels: Int[Tensor, "b"]) -> Int[Tensor, "m 3"]:
        """All admissible triplets."""
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = same & ~itself
        if not bool(positive.any()):
            rows, others = torch.nonzero(~itself, as_tuple=True)
            return torch.stack([rows, rows, others], dim=1)
        return torch.nonzero(positive[:, :, None] & ~same[:, None, :])

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        population = self.population(labels)
        if len(population) == 0:
            raise ValueError(f"RandomTriplet found no triplet in a batch of {len(labels)} rows. Use a larger batch.")
        counter = index[:1]
        if bool((population[:, 0] == population[:, 1]).all()):
            taken = draws.one_of("triplet", index, population[:, 0][None, :] == arange_like(labels)[:, None])
        elif len(population) >= len(labels):
            taken = draws.permutation("triplet", counter, len(population))[0, : len(labels)]
        else:
            taken = draws.integers("triplet", counter, len(population), (len(labels),))[0]
        return Triplets(*population[taken].unbind(dim=1))


MINERS: dict[str, type[Miner]] = {
    c.__name__: c for c in (Random, SemiHard, SoftHard, DistanceWeighted, Hardest, RandomTriplet)
}
