"""An attack: a goal pursued by an adversary against a fixed gallery."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.attacks.goals import Goal
from robustdml.attacks.scene import Scene
from robustdml.deep_metric import DeepMetric
from robustdml.draws import Draws


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attack did to b images.

    Attributes:
        images: the perturbed images.
        aims: gallery rows aimed at.
        before, after: named numbers per image. `shift` is the distance from the clean embedding, of the final image.
    """

    images: Float[Tensor, "b c h w"]
    aims: Int[Tensor, "b m"]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


@dataclass(frozen=True)
class Attack:
    """A goal and an adversary."""

    goal: Goal
    adversary: Adversary

    def __call__(
        self,
        metric: DeepMetric,
        scene: Scene,
        images: Float[Tensor, "b c h w"],
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Outcome:
        """Attack `images`, whose clean embeddings the scene holds. `index` are the counters of the draws."""
        aims = self.goal.choose(scene, draws=draws, index=index)
        score = self.goal.score(scene, aims)
        perturbed = self.adversary(
            metric.embedder,
            images,
            self.goal.energy(scene, aims),
            achieved=self.goal.achieved(scene, aims),
            coupled=self.goal.coupled,
            draws=draws,
            index=index,
        )
        z = metric.embed(perturbed)
        shift = scene.distance.pairs(z, scene.clean)
        before = score(scene.clean) | {"shift": torch.zeros_like(shift)}
        return Outcome(perturbed, aims, before, score(z) | {"shift": shift})
