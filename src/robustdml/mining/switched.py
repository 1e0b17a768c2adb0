"""Miners whose triplets are now and then turned around."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.mining.miner import Miner
from robustdml.mining.pairs import DistanceWeighted
from robustdml.types import Triplets


@dataclass(frozen=True)
class Switched:
    """Another miner, whose triplets (a, p, n) are now and then (a, a, p): spectral regularisation (Roth et al., 2020).

    One coin is tossed for the whole batch, the same on all processes.

    Note: the paper describes swapping p and n, its code does this; RobRank reports a loss in accuracy from the former.

    Args:
        miner: whose triplets are switched.
        probability: of switching a batch; published with 0.15 and distance-weighted negatives.
    """

    miner: Miner = field(default_factory=DistanceWeighted)
    probability: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"Switched needs a probability in [0, 1], got {self.probability}.")

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        found = self.miner(z, labels, distance, draws=draws, index=index)
        switch = draws.uniform("switch", index.new_zeros(1)) < self.probability
        return Triplets(
            found.anchor,
            torch.where(switch, found.anchor, found.positive),
            torch.where(switch, found.positive, found.negative),
        )
