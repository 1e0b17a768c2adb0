"""Image-agnostic attacks: one perturbation that moves whatever it is added to (ECCV 2020, arXiv:2002.11293)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.candidate import Candidate
from robustdml.attacks.goals.goal import Score
from robustdml.attacks.goals.query import Query
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.ranking import precise
from robustdml.types import Achieved, Energy

NEAR_SHARE = 0.01
"""Share of each half of a block that a lowering attack reports: the images that were near the target."""


@dataclass(frozen=True)
class Agnostic:
    """CA or QA with one random target for all images of a block; meant for the search `Universal`.

    The images at even places of the block are those that the perturbation is found on, those at odd places have not
    been seen. Of a lowering attack only the images nearest to the target are reported, 1 % of each half and at least
    one. Scores of all others are NaN.

    Args:
        goal: the attack, with one target.

    Raises:
        ValueError: for more than one target.

    Note:
        The published code draws a tenth of the batch as targets and makes one perturbation for each. Here a measurement
        makes one for each block; several measurements make several.
    """

    goal: Candidate | Query = field(default_factory=lambda: Candidate("raise"))
    coupled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        count = self.goal.queries if isinstance(self.goal, Candidate) else self.goal.candidates
        if count != 1:
            raise ValueError(f"Agnostic needs a goal with one target, got {count}.")

    @property
    def perturbs(self) -> str:
        """As the goal."""
        return self.goal.perturbs

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """The same gallery row for all, drawn by the first counter of the block."""
        return draws.integers("target", index[:1], scene.size, (1,)).expand(len(index), 1)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """That of the goal."""
        return self.goal.energy(scene, aims)

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`seen_prank` and `unseen_prank`: percentile ranks in the two halves of the block."""
        inner, place = self.goal.score(scene, aims), torch.arange(len(aims), device=aims.device) % 2
        reported = self._reported(scene, aims, place)

        def score(z: Tensor) -> dict[str, Tensor]:
            prank = inner(z)["prank"]
            return {
                f"{name}_prank": prank.masked_fill((place != half) | ~reported, torch.nan)
                for half, name in enumerate(("seen", "unseen"))
            }

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """That of the goal."""
        return self.goal.achieved(scene, aims)

    def _reported(self, scene: Scene, aims: Tensor, place: Tensor) -> Tensor:
        if self.goal.direction == "raise":
            return torch.ones_like(place, dtype=torch.bool)
        d = scene.distance.matrix(precise(scene.clean)[:, None], precise(scene.gallery.z[aims]))[:, 0, 0]
        reported = torch.zeros_like(place, dtype=torch.bool)
        for half in (0, 1):
            rows = (place == half).nonzero()[:, 0]
            few = rows[d[rows].argsort()][: max(1, int(NEAR_SHARE * len(rows)))]
            reported[few] = True
        return reported
