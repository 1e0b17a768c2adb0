"""The triplet loss."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.energies import hardness
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import on_mined
from robustdml.mining import Miner, Random


@dataclass(frozen=True)
class Triplet:
    """mean_t [d(a, p) - d(a, n) + margin]_+, zeros included (FaceNet, arXiv:1503.03832).

    Args:
        margin: in units of the distance; published values are 0.2 on the sphere and 1.0 for raw Euclidean embeddings.
        anchor: "fixed" lets no gradient through the anchor, so that positive and negative move around it.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2
    anchor: Literal["trained", "fixed"] = "trained"

    __call__, build, parameter_groups = on_mined, itself, no_weights

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"Triplet needs a finite margin >= 0, got {self.margin}.")

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The mean over all triplets.

        Note: RobRank's defenses that choose triplets themselves train the anchor of `ptripxaN` all the same; here it
        stays fixed under every defense.
        """
        margin = self.margin if margin is None else margin
        anchor = z[:, 0].detach() if self.anchor == "fixed" else z[:, 0]
        return (hardness(self.distance, anchor, z[:, 1], z[:, 2]) + margin).clamp_min(0).mean()

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """H + margin > 0."""
        with torch.no_grad():
            return hardness(self.distance, z[:, 0], z[:, 1], z[:, 2]) + self.margin > 0
