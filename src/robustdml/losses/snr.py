"""The loss on signal-to-noise ratios."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mean_of_active, on_mined
from robustdml.mining import Miner, Random

_QUIET = 1e-12
"""Variances of an anchor are floored here: a constant embedding carries no signal to divide by."""


@dataclass(frozen=True)
class Snr:
    """mean over the active of [r(a, p) - r(a, n) + margin]_+ + zero_mean * mean_t |sum_k a_k| (Yuan et al., 2019).

    r(u, v) = var(u - v) / var(u) over coordinates, of normalised embeddings where the distance normalises.

    Note: with nothing active RobRank returns 0/0; here the first term is 0 and the second remains.

    Args:
        zero_mean: weight of the term that keeps the coordinates of the anchors centred.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2
    zero_mean: float = 5e-3

    __call__, build, parameter_groups = on_mined, itself, no_weights

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The mean over the active triplets, and the centring of all anchors."""
        placed = self.distance.place(z)
        noise = mean_of_active(_noise(placed) + (self.margin if margin is None else margin))
        return noise + self.zero_mean * placed[:, 0].sum(dim=1).abs().mean()

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """r(a, p) - r(a, n) + margin > 0."""
        with torch.no_grad():
            return _noise(self.distance.place(z)) + self.margin > 0


def _noise(placed: Float[Tensor, "t 3 d"]) -> Float[Tensor, "t"]:
    """r(a, p) - r(a, n)."""
    anchor, positive, negative = placed.unbind(dim=1)
    difference = (anchor - positive).var(dim=1) - (anchor - negative).var(dim=1)
    return difference / anchor.var(dim=1).clamp_min(_QUIET)
