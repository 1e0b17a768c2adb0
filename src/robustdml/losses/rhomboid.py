"""The rhomboid loss."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mine
from robustdml.mining import Miner, Random, need_pairs
from robustdml.types import Triplets


@dataclass(frozen=True)
class Rhomboid:
    """mean_t [d(a, p) - d(a, n) + margin]_+ + mean_t [d(n, m) - d(n, a) + margin]_+, m the partner of n (RobRank).

    The negative becomes the anchor of a second triplet, whose negative is the first anchor.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2

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
        """Averages over all triplets, zeros included; mines unless `triplets` are given.

        Raises:
            ValueError: if the batch does not hold pairs.
        """
        need_pairs(self, labels)
        triplets = triplets or mine(self, z, labels, draws=draws, index=index)
        anchor, positive, negative = triplets.of(z)
        partner = z[triplets.negative ^ 1]
        pairs = self.distance.pairs
        first = pairs(anchor, positive) - pairs(anchor, negative) + self.margin
        second = pairs(negative, partner) - pairs(negative, anchor) + self.margin
        return first.clamp_min(0).mean() + second.clamp_min(0).mean()
