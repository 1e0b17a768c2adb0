"""Leaving one's class: a query wants to be nearer to the middle of another class than to that of its own."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, no_targets
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class LeaveClass:
    """min_k d(e, m_k) - d(e, m_y) over the other classes k, m the mean embedding of a class of the gallery.

    What an attack on a classifier would do to an embedding whose classes are compact: single items may lie badly, the
    middles of classes do not. Ours, in no published score.
    """

    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """No targets."""
        return no_targets(scene)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The difference; zero for a query whose class the gallery lacks, or where it has no other."""
        classes, to_means = scene.system.to_class_means
        own = scene.labels[:, None] == classes[None, :]
        defined = own.any(dim=1) & (len(classes) > 1)

        def energy(z: Float[Tensor, "b d"], unit: Tensor, step: int) -> Tensor:
            d, here = to_means(z), own[unit]
            nearest = d.masked_fill(here, torch.inf).amin(dim=1)
            difference = nearest - d.masked_fill(~here, 0.0).sum(dim=1)
            return torch.where(defined[unit], difference, z.sum(dim=1) * 0)

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1."""
        return lambda z: {"recall@1": scene.recall(z)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The first item is of another class."""
        return lambda z, unit: scene.of(unit).recall(z) == 0
