"""Destinations: how hard hardness manipulation makes a triplet (arXiv:2203.01439)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.mining import Miner, SemiHard
from robustdml.types import Triplets


@runtime_checkable
class Destination(Protocol):
    """The hardness that source triplets are raised to, chosen once per step on clean embeddings."""

    @property
    def follows_loss(self) -> bool:
        """Whether it depends on the loss of the step before."""
        ...

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        source: Triplets,
        distance: Distance,
        *,
        previous: float,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "t"]:
        """H_D of each source triplet; `previous` is the adversarial loss of the step before."""
        ...


@dataclass(frozen=True)
class Sampled:
    """The hardness of another triplet of the same anchor, found by a miner of its own among the clean embeddings.

    Args:
        miner: as semihard in HM[S,M].
        raised: xi of g_B: xi (1 - l) is added, with l the previous loss clipped to [0, ceiling] over `ceiling`.
        ceiling: u; used by `raised` alone.
    """

    miner: Miner = field(default_factory=SemiHard)
    raised: float = 0.0
    ceiling: float = 0.2

    def __post_init__(self) -> None:
        _positive(self, ceiling=self.ceiling)
        if not 0 <= self.raised < float("inf"):
            raise ValueError(f"Sampled needs a finite raised >= 0, got {self.raised}. The published g_B has 0.1.")

    @property
    def follows_loss(self) -> bool:
        """Only if it is raised."""
        return self.raised != 0

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        source: Triplets,
        distance: Distance,
        *,
        previous: float,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "t"]:
        """One number per anchor.

        Raises:
            ValueError: if the miner chooses other anchors than the source has.
        """
        found = self.miner(z, labels, distance, draws=draws.under("destination"), index=index)
        if not torch.equal(found.anchor, source.anchor):
            raise ValueError(
                f"{type(self.miner).__name__} finds triplets of other anchors than those that are made harder, so none "
                "has a destination. Use miners of pairs (Random, SemiHard, SoftHard, DistanceWeighted, Hardest) for "
                "source and destination, or Constant or Gradual as the destination."
            )
        return hardness(distance, *found.of(z)) + self.raised * (1 - _relative(previous, self.ceiling))


@dataclass(frozen=True)
class Constant:
    """The same hardness for all triplets.

    The largest the distance allows is `MinMax`, and 0 collapses (published R@1 0.8 on CUB): a triplet at 0 is ranked
    wrongly as often as not. -margin / 2 is the published choice.
    """

    hardness: float = -0.1
    follows_loss: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.hardness):
            raise ValueError(f"Constant needs a finite hardness, got {self.hardness}. -0.1 is half the usual margin.")

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        source: Triplets,
        distance: Distance,
        *,
        previous: float,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "t"]:
        """Draws nothing."""
        return z.new_full((len(source.anchor),), self.hardness)


@dataclass(frozen=True)
class Gradual:
    """-margin * l^power, with l the loss of the step before, clipped to [0, ceiling], over `ceiling` (g_LGA).

    Triplets stay easy while the model cannot cope, and come as hard as hardness 0 once it can. `power` 1 is the linear
    gradual adversary; 2 and 0.5 are the published others.
    """

    margin: float = 0.2
    ceiling: float = 0.2
    power: float = 1.0
    follows_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(self, margin=self.margin, ceiling=self.ceiling, power=self.power)

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        source: Triplets,
        distance: Distance,
        *,
        previous: float,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "t"]:
        """Draws nothing."""
        return z.new_full((len(source.anchor),), -self.margin * _relative(previous, self.ceiling) ** self.power)


def _relative(previous: float, ceiling: float) -> float:
    """The loss of the step before, clipped to [0, ceiling], as a share of it.

    Raises:
        ValueError: for a loss that is no number.
    """
    if not math.isfinite(previous):
        raise ValueError(
            f"the loss of the step before is {previous}, so the destination that follows it is undefined. Lower "
            "--optimiser.lr or set --clip 1.0, and resume from a checkpoint before it."
        )
    return min(max(previous, 0.0), ceiling) / ceiling


def _positive(destination: object, **numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{type(destination).__name__} needs a finite {name} > 0, got {value}.")
