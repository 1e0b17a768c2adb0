"""Embedding shift: a query wants to be as far as possible from where it was."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, no_targets
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.energies import shift
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class EmbeddingShift:
    """ES: -d(e, e_0), untargeted (ECCV 2020, arXiv:2002.11293). Gives two components of ERS: the shift and recall@1."""

    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """No targets."""
        return no_targets(scene)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The negative shift; the reference is nudged along (1, …, 1) at step 0, where no direction is defined."""
        return shift(scene.distance, scene.clean, lambda unit: torch.full_like(scene.clean[unit], 1e-7))

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1, @10 and @100; the shift itself is reported for every attack."""
        ks = tuple(k for k in (1, 10, 100) if k < scene.size)
        return lambda z: {f"recall@{k}": hit for k, hit in zip(ks, scene.recalls(z, ks), strict=True)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The first item is of another class."""
        return lambda z, unit: scene.of(unit).recall(z) == 0
