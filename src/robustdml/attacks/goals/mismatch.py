"""Targeted mismatch: a query wants to pass for another image."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, anywhere
from robustdml.attacks.scene import Scene
from robustdml.distance import Cosine
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class TargetedMismatch:
    """TMA: 1 - cos(e, z) for a random gallery item z, whatever the distance (arXiv:1908.09163).

    Args:
        unique: never the query itself; the published draw permits it.
    """

    unique: bool = False
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """One gallery row each."""
        return anywhere(scene, 1, self.unique, draws, index)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The cosine distance to the target."""
        target = scene.gallery.z[aims[:, 0]]
        return lambda z, unit, step: Cosine().pairs(z, target[unit])

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`cosine` similarity to the target, in [-1, 1]."""
        target = scene.gallery.z[aims[:, 0]]
        return lambda z: {"cosine": 1 - Cosine().pairs(z, target)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Closer to the target than to any other gallery item."""

        def achieved(z: Tensor, unit: Tensor) -> Tensor:
            d = scene.of(unit).precise_distances(z)
            return d.gather(1, aims[unit])[:, 0] <= d.amin(dim=1) + scene.system.resolution

        return achieved
