"""Candidate attack: a gallery item wants to be ranked high, or low, by some queries (ECCV 2020, arXiv:2002.11293)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.goal import (
    Score,
    anywhere,
    at_the_end,
    in_front,
    in_head,
    most_visible,
    nearby,
    percentile_of,
)
from robustdml.attacks.scene import Scene, rows_of
from robustdml.draws import Draws
from robustdml.ranking import precise
from robustdml.types import Achieved, Energy, arange_like


@dataclass(frozen=True)
class Candidate:
    """CA+ (raise) and CA- (lower): move a candidate in the rankings of W queries.

    raise: (1/NW) sum_w sum_n [d(e, q_w) - d(x_n, q_w)]_+; lower: the same with the sign of the difference turned.
    Only d(e, q_w) depends on the perturbation, so the sum over the gallery is a prefix sum of sorted constants.

    Args:
        direction: queries are drawn from the whole gallery (raise) or from the candidate's nearest 1 % (lower).
        queries: W.
        unique: no query twice and never the candidate itself; published draws permit both.
        objective: "distance" is the published ablation that minimises +-(1/W) sum_w d(e, q_w) instead.
        sampling: "local" draws the queries of raise between 1 % and 5 % of the candidate's neighbours, "visual" those
            of lower from the first 0.03 %.

    Raises:
        ValueError: for a sampling that the direction does not have, or less than one query.
    """

    direction: Literal["raise", "lower"]
    queries: int = 1
    unique: bool = False
    objective: Literal["hinge", "distance"] = "hinge"
    sampling: Literal["usual", "local", "visual"] = "usual"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "candidate"

    def __post_init__(self) -> None:
        check_draws("Candidate", self.direction, self.queries, self.sampling)

    @property
    def from_head(self) -> int:
        """How many of the nearest items its targets need at least; 0 if they are drawn elsewhere."""
        return self.queries if self.direction == "lower" else 0

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows that act as queries."""
        if self.sampling == "local":
            return nearby(scene, self.queries, draws, index)
        if self.direction == "raise":
            return anywhere(scene, self.queries, self.unique, draws, index)
        head = most_visible(scene, self.queries) if self.sampling == "visual" else scene.head(self.from_head)
        return head.gather(1, in_head(head, self.queries, draws, index, scene.size, repeat=not self.unique))

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge objective, O(log N) per query and step; or the mean distance."""
        if self.objective == "distance":
            return mean_distance(scene, aims, self.direction)
        queries, rankings, n = scene.gallery.z[aims], scene.rankings(aims), scene.size
        total = rankings.sums.new_tensor(0.0)
        if self.direction == "lower":
            every = arange_like(aims)
            total = rankings.sum_of_first(torch.full_like(aims, n), every)

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            own = scene.distance.matrix(z[:, None], rows_of(queries, unit))[:, 0].to(rankings.ordered.dtype)
            with torch.no_grad():
                k = rankings.before(own, unit, ties=False)
                below = rankings.sum_of_first(k, unit)
            value = k * own - below if self.direction == "raise" else total[unit] - below - (n - k) * own
            return (value / n).mean(dim=1).to(z.dtype)

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`prank`: the candidate's percentile rank, mean over its queries."""
        return lambda z: {"prank": self._ranks(scene, aims, z, arange_like(z)).mean(dim=1)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """First (raise) or last (lower) for all queries."""
        there = in_front if self.direction == "raise" else at_the_end
        return lambda z, unit: there(self._ranks(scene, aims, z, unit), scene.size, 1)

    def _ranks(self, scene: Scene, aims: Tensor, z: Tensor, unit: Int[Tensor, "k"]) -> Float[Tensor, "k m"]:
        rankings, resolution = scene.rankings(aims), scene.system.resolution
        queries = precise(scene.gallery.z[aims[unit]])
        own = scene.distance.matrix(precise(z)[:, None], queries)[:, 0]
        lower = self.direction == "lower"
        rank = rankings.before(own + resolution if lower else own - resolution, unit, ties=lower)
        tied: int | Tensor = 0
        if scene.itself is not None:  # the candidate's own clean copy does not come before it by a tie
            itself = precise(scene.gallery.z[scene.itself[unit]])
            tied = ((scene.distance.matrix(itself[:, None], queries)[:, 0] - own).abs() <= resolution).long()
        return percentile_of(rank, rankings.spread[unit], scene.size, resolution, lower, tied)


def check_draws(name: str, direction: str, count: int, sampling: str) -> None:
    """Raise for a sampling that the direction does not have, or less than one target."""
    if count < 1:
        raise ValueError(f"{name} needs at least one target, got {count}.")
    if (direction, sampling) in (("lower", "local"), ("raise", "visual")):
        wanted = "raise" if sampling == "local" else "lower"
        raise ValueError(f"{name}: {sampling} sampling is defined for {wanted!r}, got {direction!r}.")


def mean_distance(scene: Scene, aims: Int[Tensor, "b m"], direction: str) -> Energy:
    """+-(1/M) sum_m d(e, c_m): the published distance-only ablation, inferior to the hinge."""
    targets, sign = scene.gallery.z[aims], 1 if direction == "raise" else -1

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return sign * scene.distance.matrix(z[:, None], rows_of(targets, unit))[:, 0].mean(dim=1)

    return energy
