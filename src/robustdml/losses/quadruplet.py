"""The quadruplet loss."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mine
from robustdml.mining import Miner, Random, fall_back
from robustdml.types import Triplets


@dataclass(frozen=True)
class Quadruplet:
    """mean_t [d(a, p) - d(a, n) + margin]_+ + mean_t [d(a, p) - d(n, m) + second_margin]_+ (Chen et al., 2017).

    m is a negative mined for another anchor of the batch, uniform among those of another class than n.

    Note: RobRank draws a place in the list of mined negatives and uses it as a row of the batch, so that m is an
    unrelated row among the first half, perhaps the anchor itself, or any row where the only place is the first.
    `second="as-published"` keeps that; its table needs it.

    Args:
        margin: of the first term; published with 0.2 on the sphere and 1.0 for raw Euclidean embeddings.
        second_margin: of the second term; published with 0.1 and 0.5.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2
    second_margin: float = 0.1
    second: Literal["mined", "as-published"] = "mined"

    build, parameter_groups = itself, no_weights

    def on_quadruplets(self, z: Float[Tensor, "t 4 d"]) -> Float[Tensor, ""]:
        """The loss of given (a, p, n, m), averaged over all, zeros included."""
        anchor, positive, negative, other = z.unbind(dim=1)
        near = self.distance.pairs(anchor, positive)
        first = near - self.distance.pairs(anchor, negative) + self.margin
        second = near - self.distance.pairs(negative, other) + self.second_margin
        return first.clamp_min(0).mean() + second.clamp_min(0).mean()

    def others(
        self, triplets: Triplets, labels: Int[Tensor, "b"], *, draws: Draws, index: Int[Tensor, "b"]
    ) -> Int[Tensor, "t"]:
        """A row m for every triplet; any row of another class than n, or any row, where no mined one will do."""
        counter = index[triplets.anchor]
        of_negative = labels[triplets.negative]
        places: Bool[Tensor, "t t"] = of_negative[:, None] != of_negative[None, :]
        if self.second == "as-published":
            usable = places.any(dim=1) & ~(places[:, 0] & (places.sum(dim=1) == 1))
            rows = torch.zeros(len(places), len(labels), dtype=torch.bool, device=labels.device)
            rows[:, : places.shape[1]] = places[:, : len(labels)]
            return draws.one_of("second negative", counter, rows | ~usable[:, None])
        mined = torch.zeros(len(places), len(labels), dtype=torch.bool, device=labels.device)
        mined[:, triplets.negative] = places
        unlike = of_negative[:, None] != labels[None, :]
        allowed = fall_back(fall_back(mined, unlike), torch.ones_like(unlike))
        return draws.one_of("second negative", counter, allowed)

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """Mines unless `triplets` are given, and completes them; gradient flows to all four roles."""
        triplets = triplets or mine(self, z, labels, draws=draws, index=index)
        other = self.others(triplets, labels, draws=draws, index=index)
        return self.on_quadruplets(torch.stack([*triplets.of(z), z[other]], dim=1))
