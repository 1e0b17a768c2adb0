"""Query attack: a query wants some candidates ranked high, or low, in its result (ECCV 2020, arXiv:2002.11293)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.candidate import reached
from robustdml.attacks.goals.goal import Score, anywhere, of_the_head, percentile, rows_of
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class Query:
    """QA+ (raise) and QA- (lower): move M candidates in the ranking of a perturbed query.

    raise: (1/NM) sum_m sum_n [d(e, c_m) - d(e, x_n)]_+; lower: the same with the sign of the difference turned.
    Both distances depend on the perturbation; one product with the gallery serves all terms.

    Args:
        direction: candidates are drawn from the whole gallery (raise) or from the query's nearest 1 % (lower).
        candidates: M.
        unique: no candidate twice and never the query itself; published raise draws permit both.
    """

    direction: Literal["raise", "lower"]
    candidates: int = 1
    unique: bool = False
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows to be moved."""
        if self.direction == "raise":
            return anywhere(scene, self.candidates, self.unique, draws, index)
        return of_the_head(scene, self.candidates, False, draws, index)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge objective."""
        return ranking_energy(scene, aims, self.direction)

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`prank`: percentile rank of the candidates, mean over them; the query's own copy is ranked as well."""
        lower = self.direction == "lower"

        def score(z: Tensor) -> dict[str, Tensor]:
            d = scene.precise_distances(z)
            ranks = percentile(d, d.gather(1, aims), scene.system.resolution, lower, counted=1)
            return {"prank": ranks.mean(dim=1)}

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """All candidates first (raise) or last (lower)."""
        best = (self.candidates - 1) / 2  # they share the first, or last, M places
        return reached(lambda: self.score(scene, aims), self.direction, scene.size, best, self.candidates)


def ranking_energy(scene: Scene, aims: Int[Tensor, "b m"], direction: str) -> Energy:
    """The hinge objective of QA as a weighted sum of distances.

    With k_m items nearer (raise) or not nearer (lower) than c_m, the sum of hinges is linear in the distances: weight
    k_m on c_m and -1 on each active item, up to the sign. Weights are constants of the step, so one pass suffices.
    """
    compare = torch.lt if direction == "raise" else torch.gt
    scale = (1 if direction == "raise" else -1) / (scene.size * aims.shape[1])

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        def weigh(d: Tensor) -> Tensor:
            weights, active = torch.zeros_like(d), torch.empty_like(d)
            for aim in rows_of(aims, unit).split(1, dim=1):
                compare(d, d.gather(1, aim), out=active)  # 1 or 0 in one pass; a boolean would cost ten times as much
                weights.sub_(active, alpha=scale)
                weights.scatter_add_(1, aim, active.sum(dim=1, keepdim=True) * scale)
            return weights

        return scene.system.to_gallery.weighted_sum(z, weigh)

    return energy
