"""Candidate attack: a gallery item wants to be ranked high, or low, by some queries (ECCV 2020, arXiv:2002.11293)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, anywhere, of_the_head, percentile, rows_of
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.ranking import precise, sorted_rows
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class Candidate:
    """CA+ (raise) and CA- (lower): move a candidate in the rankings of W queries.

    raise: (1/NW) sum_w sum_n [d(e, q_w) - d(x_n, q_w)]_+; lower: the same with the sign of the difference turned.
    Only d(e, q_w) depends on the perturbation, so the sum over the gallery is a prefix sum of sorted constants.

    Args:
        direction: queries are drawn from the whole gallery (raise) or from the candidate's nearest 1 % (lower).
        queries: W.
        unique: no query twice and never the candidate itself; published draws permit both.
    """

    direction: Literal["raise", "lower"]
    queries: int = 1
    unique: bool = False
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "candidate"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows that act as queries."""
        if self.direction == "raise":
            return anywhere(scene, self.queries, self.unique, draws, index)
        return of_the_head(scene, self.queries, not self.unique, draws, index)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge objective, O(log N) per query and step."""
        queries = scene.gallery.z[aims]
        with torch.no_grad():
            d = scene.system.to_gallery(queries.flatten(0, 1)).unflatten(0, aims.shape)
            ordered = sorted_rows(d)
            summed = torch.nn.functional.pad(ordered.cumsum(dim=2, dtype=torch.float64), (1, 0))
        n = scene.size

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            own = scene.distance.matrix(z[:, None], rows_of(queries, unit))[:, 0]
            with torch.no_grad():
                nearer = torch.searchsorted(rows_of(ordered, unit), own[..., None])
                below = rows_of(summed, unit).gather(2, nearer)[..., 0].to(z.dtype)
                k = nearer[..., 0].to(z.dtype)
                total = summed[unit, :, -1].to(z.dtype)
            if self.direction == "raise":
                return ((k * own - below) / n).mean(dim=1)
            return ((total - below - (n - k) * own) / n).mean(dim=1)

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`prank`: the candidate's percentile rank, mean over its queries."""
        queries = precise(scene.gallery.z[aims])
        d = [scene.system.to_gallery_precisely(q) for q in queries.unbind(dim=1)]
        lower = self.direction == "lower"

        def score(z: Tensor) -> dict[str, Tensor]:
            own = scene.distance.matrix(precise(z)[:, None], queries)[:, 0]
            ranks = []
            for w, to_query in enumerate(d):
                tied: int | Tensor = 0
                if scene.itself is not None:  # the candidate's own clean copy does not come before it by a tie
                    copy = to_query.gather(1, scene.itself[:, None])[:, 0]
                    tied = ((copy - own[:, w]).abs() <= scene.system.resolution).long()[:, None]
                ranks.append(percentile(to_query, own[:, w, None], scene.system.resolution, lower, tied))
            return {"prank": torch.cat(ranks, dim=1).mean(dim=1)}

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """First (raise) or last (lower) for all queries."""
        return reached(lambda: self.score(scene, aims), self.direction, scene.size, best=0.0, count=self.queries)


def reached(build: Callable[[], Score], direction: str, n: int, best: float, count: int) -> Achieved:
    """Whether a mean percentile rank is the best there is; the score is built when it is first asked for.

    Args:
        best: the mean place of the targets when all are in front.
        count: how many targets the mean is over.
    """
    score = cache(build)

    def achieved(z: Tensor, unit: Tensor) -> Tensor:
        place = score()(z)["prank"] * n
        missing = place - best if direction == "raise" else n - 1 - best - place
        return missing * count < 1 - 1e-6

    return achieved
