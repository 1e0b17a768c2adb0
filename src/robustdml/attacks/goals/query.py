"""Query attack: a query wants some candidates ranked high, or low, in its result (ECCV 2020, arXiv:2002.11293)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.candidate import check_draws, mean_distance
from robustdml.attacks.goals.goal import (
    Score,
    anywhere,
    at_the_end,
    in_front,
    in_head,
    most_visible,
    nearby,
    percentile,
)
from robustdml.attacks.scene import Scene, rows_of
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
        objective: "distance" is the published ablation that minimises +-(1/M) sum_m d(e, c_m) instead.
        sampling: "local" draws the candidates of raise between 1 % and 5 % of the query's result, "visual" those of
            lower from the first 0.03 %.

    Raises:
        ValueError: for a sampling that the direction does not have, or less than one candidate.
    """

    direction: Literal["raise", "lower"]
    candidates: int = 1
    unique: bool = False
    objective: Literal["hinge", "distance"] = "hinge"
    sampling: Literal["usual", "local", "visual"] = "usual"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def __post_init__(self) -> None:
        check_draws("Query", self.direction, self.candidates, self.sampling)

    @property
    def from_head(self) -> int:
        """How many of the nearest items its targets need at least; 0 if they are drawn elsewhere."""
        return self.candidates if self.direction == "lower" else 0

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows to be moved."""
        if self.sampling == "local":
            return nearby(scene, self.candidates, draws, index)
        if self.direction == "raise":
            return anywhere(scene, self.candidates, self.unique, draws, index)
        head = most_visible(scene, self.candidates) if self.sampling == "visual" else scene.head(self.from_head)
        return head.gather(1, in_head(head, self.candidates, draws, index, scene.size))

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge objective, or the mean distance."""
        if self.objective == "distance":
            return mean_distance(scene, aims, self.direction)
        return ranking_energy(scene, aims, self.direction)

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`prank`: percentile rank of the candidates, mean over them; the query's own copy is ranked as well."""
        return lambda z: {"prank": ranks_of(scene, aims, self.direction, z).mean(dim=1)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """All candidates share the first (raise) or last (lower) M places."""
        there = in_front if self.direction == "raise" else at_the_end
        return lambda z, unit: there(
            ranks_of(scene.of(unit), aims[unit], self.direction, z), scene.size, self.candidates
        )


def ranks_of(scene: Scene, aims: Int[Tensor, "b m"], direction: str, z: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
    """Percentile ranks of gallery rows in the result of the queries `z`."""
    d = scene.precise_distances(z)
    return percentile(d, d.gather(1, aims), scene.system.resolution, direction == "lower", counted=1)


def add_hinge_weights(
    weights: Float[Tensor, "b n"], d: Float[Tensor, "b n"], aims: Int[Tensor, "b m"], direction: str, scale: float = 1.0
) -> None:
    """Add the weights with which the hinge objective of QA sums the distances `d`, times `scale`, in place.

    With k_m items nearer (raise) or not nearer (lower) than c_m, the sum of hinges is linear in the distances: weight
    k_m on c_m and -1 on each active item, up to the sign, all over N M.
    """
    compare = torch.lt if direction == "raise" else torch.gt
    each = scale * (1 if direction == "raise" else -1) / (d.shape[1] * aims.shape[1])
    active = torch.empty_like(d)
    for aim in aims.split(1, dim=1):
        compare(d, d.gather(1, aim), out=active)  # 1 or 0 in one pass; a boolean would cost ten times as much
        weights.sub_(active, alpha=each)
        weights.scatter_add_(1, aim, active.sum(dim=1, keepdim=True) * each)


def hinge_value(scene: Scene, z: Float[Tensor, "b d"], aims: Int[Tensor, "b m"], direction: str) -> Float[Tensor, "b"]:
    """The hinge objective of QA where nobody asks for its gradient: piece by piece, in the cache."""
    own = scene.distance.matrix(z[:, None], scene.gallery.z[aims])[:, 0]
    total = torch.zeros_like(own[:, 0])
    for _, d in scene.system.to_gallery.pieces(z):
        for m in range(own.shape[1]):
            hinge = own[:, m : m + 1] - d if direction == "raise" else d - own[:, m : m + 1]
            total += hinge.clamp_min_(0).sum(dim=1)
    return total / (scene.size * own.shape[1])


def ranking_energy(scene: Scene, aims: Int[Tensor, "b m"], direction: str) -> Energy:
    """The hinge objective of QA as a weighted sum of distances, whose weights are constants of the step."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        if not (z.requires_grad and torch.is_grad_enabled()):
            return hinge_value(scene, z, rows_of(aims, unit), direction)

        def weigh(d: Tensor) -> Tensor:
            weights = torch.zeros_like(d)
            add_hinge_weights(weights, d, rows_of(aims, unit), direction)
            return weights

        return scene.system.to_gallery.weighted_sum(z, weigh)

    return energy
