"""Greedy top-1 attacks: a wrong item is to be found first, or the right one is to be lost."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score
from robustdml.attacks.goals.query import ranking_energy
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.ranking import rank_of
from robustdml.types import Achieved, Energy

LOST_BELOW = 4
"""GTT counts the original top-1 item as retained while it is among this many first items."""


@dataclass(frozen=True)
class Mismatch:
    """GTM: d(e, x_u) for the nearest item of another class (RobRank, arXiv:2106.03614).

    Args:
        target: "nearest" is the nearest item of a class other than the query's. "as-published" is what RobRank's
            figures were made with: let p be the place of the nearest item among those whose label differs from that of
            the query's nearest neighbour, counted in gallery order; gallery row p is attacked, almost any item.
    """

    target: Literal["nearest", "as-published"] = "nearest"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """One gallery row each."""
        others = scene.without_itself(scene.distances, torch.inf)
        if self.target == "nearest":
            return others.masked_fill(scene.same_class, torch.inf).argmin(dim=1, keepdim=True)
        label = scene.gallery.labels[scene.nearest[:, :1]]
        unlike = scene.gallery.labels[None, :] != label
        nearest = others.masked_fill(~unlike, torch.inf).argmin(dim=1, keepdim=True)
        return unlike.cumsum(dim=1).gather(1, nearest) - 1

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The distance to the target."""
        target = scene.gallery.z[aims[:, 0]]
        return lambda z, unit, step: scene.distance.pairs(z, target[unit])

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1."""
        return lambda z: {"recall@1": scene.recall(z)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The first item is of another class."""
        return lambda z, unit: scene.of(unit).recall(z) == 0


@dataclass(frozen=True)
class TopOut:
    """GTT: QA- on the original top-1 item, which is to leave the top 4 (RobRank, after arXiv:2103.02927)."""

    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """The nearest other item."""
        return scene.nearest[:, :1]

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge objective of QA-."""
        return ranking_energy(scene, aims, "lower")

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """retain@1 and retain@4: 1 while the item is among the first 1 or 4 others."""

        def score(z: Tensor) -> dict[str, Tensor]:
            d = scene.without_itself(scene.precise_distances(z), torch.inf)
            rank = rank_of(d, d.gather(1, aims), resolution=scene.system.resolution, ties_before=True)[:, 0] - 1
            return {"retain@1": (rank < 1).to(z.dtype), "retain@4": (rank < LOST_BELOW).to(z.dtype)}

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The item has left the top 4."""
        return lambda z, unit: self.score(scene.of(unit), aims[unit])(z)["retain@4"] == 0
