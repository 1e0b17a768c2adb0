"""An attack: a goal pursued by an adversary against a fixed gallery."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.attacks.goals import Goal
from robustdml.attacks.scene import Scene
from robustdml.deep_metric import DeepMetric
from robustdml.draws import Draws
from robustdml.models.embedder import frozen, in_float32


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
            self.goal.energy(_as_run(metric, scene, images), aims),
            achieved=self.goal.achieved(scene, aims),
            coupled=self.goal.coupled,
            draws=draws,
            index=index,
        )
        z = metric.embed(perturbed)
        shift = scene.distance.pairs(z, scene.clean)
        before = score(scene.clean) | {"shift": torch.zeros_like(shift)}
        return Outcome(perturbed, aims, before, score(z) | {"shift": shift})


def _as_run(metric: DeepMetric, scene: Scene, images: Float[Tensor, "b c h w"]) -> Scene:
    """The scene with clean embeddings as the embedder runs, which differ from the scored ones in bfloat16.

    An attack that leaves its clean embedding would else begin by following the rounding.
    """
    if in_float32(metric.embedder) is metric.embedder:
        return scene
    with frozen(metric.embedder), torch.no_grad():
        return replace(scene, clean=metric.embedder(images))
