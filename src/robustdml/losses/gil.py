"""The loss of linearised distances."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mine
from robustdml.mining import Miner, Random
from robustdml.types import Triplets

_NEAR = 1e-3
"""Negatives nearer than this weigh as if they were this far: the weight d^-3 has no bound."""


@dataclass(frozen=True)
class Gil:
    """mean of (<p, p/2 - a> + 1) d(a, p) and of (<n, a - n/2> + 1) d(a, n)^-3, distances held constant (RobRank).

    Embeddings are normalised where the distance normalises. There is no margin and no hinge, and no lower bound for raw
    Euclidean embeddings.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)

    build, parameter_groups = itself, no_weights

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The average over the 2 t numbers; mines unless `triplets` are given; no gradient flows to the weights."""
        triplets = triplets or mine(self, z, labels, draws=draws, index=index)
        with torch.no_grad():
            near = self.distance.pairs(z[triplets.anchor], z[triplets.positive])
            far = self.distance.pairs(z[triplets.anchor], z[triplets.negative]).clamp_min(_NEAR)
        anchor, positive, negative = triplets.of(self.distance.place(z))
        attraction = ((positive * (positive / 2 - anchor)).sum(dim=1) + 1) * near
        repulsion = ((negative * (anchor - negative / 2)).sum(dim=1) + 1) * far**-3
        return torch.cat([attraction, repulsion]).mean()
