"""The contrastive loss."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mean_of_active, on_mined
from robustdml.mining import Miner, Random


@dataclass(frozen=True)
class Contrastive:
    """mean_t d(a, p) + mean over the active of [margin - d(a, n)]_+ (Hadsell et al., 2006; distances not squared).

    Note: for the cosine distance RobRank publishes margin 0, which leaves no negative term and permits collapse; the
    default of 1.0 (similarity margin 0) is the usual loss.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 1.0

    __call__, build, parameter_groups = on_mined, itself, no_weights

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The mean over all positive pairs plus the mean over the negative pairs inside the margin."""
        margin = self.margin if margin is None else margin
        attraction = self.distance.pairs(z[:, 0], z[:, 1]).mean()
        return attraction + mean_of_active(margin - self.distance.pairs(z[:, 0], z[:, 2]))

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """margin - d(a, n) > 0."""
        with torch.no_grad():
            return self.margin - self.distance.pairs(z[:, 0], z[:, 2]) > 0
