"""The margin loss, whose boundary between near and far is learnt."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import Parameter

from robustdml.distance import Distance, Spherical
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import mean_of_active, on_mined
from robustdml.mining import Miner, Random


@dataclass(frozen=True)
class Margin:
    """mean over the active of [d(a, p) - beta + margin]_+, plus the same of [beta - d(a, n) + margin]_+.

    Wu et al., arXiv:1706.07567, with one beta for all classes. `build` makes beta a weight, of the parameter group
    "beta"; published runs give it plain stochastic gradient descent with learning rate 5e-4 (`--groups.beta Sgd`).

    Note: the two sides are averaged apart, as in RobRank; pytorch-metric-learning divides both by the number of all
    active terms.

    Args:
        beta: where the boundary begins, in units of the distance; RobRank takes 0.6 for every distance.
    """

    distance: Distance = field(default_factory=Spherical)
    miner: Miner = field(default_factory=Random)
    margin: float = 0.2
    beta: float = 0.6

    __call__, parameter_groups = on_mined, no_weights

    def build(self, num_classes: int, dim: int) -> "LearntMargin":
        """The loss with its boundary as a weight."""
        return LearntMargin(self)

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """With the boundary where it begins."""
        return self.with_boundary(z, self.beta, margin)

    def with_boundary(
        self, z: Float[Tensor, "t 3 d"], beta: float | Float[Tensor, ""], margin: float | None = None
    ) -> Float[Tensor, ""]:
        """Two means: over the positives beyond the margin, and over the negatives inside it; 0 for an empty side."""
        margin = self.margin if margin is None else margin
        anchor, positive, negative = z.unbind(dim=1)
        attraction = mean_of_active(self.distance.pairs(anchor, positive) - beta + margin)
        return attraction + mean_of_active(beta - self.distance.pairs(anchor, negative) + margin)

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """beta - d(a, n) + margin > 0."""
        return self.inside(z, self.beta)

    def inside(self, z: Float[Tensor, "t 3 d"], beta: float | Float[Tensor, ""]) -> Bool[Tensor, "t"]:
        """Which negatives are nearer than the boundary and its margin."""
        with torch.no_grad():
            return beta - self.distance.pairs(z[:, 0], z[:, 2]) + self.margin > 0


class LearntMargin(nn.Module):
    """A margin loss with the weight `beta`; gradient flows to it and to all three roles."""

    def __init__(self, config: Margin) -> None:
        super().__init__()
        self.config = config
        self.beta = Parameter(torch.tensor(config.beta, device="cpu"))

    @property
    def distance(self) -> Distance:
        """That of the configuration."""
        return self.config.distance

    @property
    def miner(self) -> Miner:
        """That of the configuration."""
        return self.config.miner

    forward, build = on_mined, itself

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """With the boundary where it is now."""
        return self.config.with_boundary(z, self.beta, margin)

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """beta - d(a, n) + margin > 0."""
        return self.config.inside(z, self.beta)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Beta alone, so that it can have an optimiser of its own."""
        return {"beta": [self.beta]}
