"""An attack: a goal pursued by an adversary against a fixed gallery."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary, Search, Universal
from robustdml.attacks.goals import Agnostic, Goal
from robustdml.attacks.scene import Scene
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Distance, Euclidean
from robustdml.draws import Draws
from robustdml.models.embedder import Embedder, frozen, in_float32
from robustdml.types import RunReference


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


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What a transfer attack sees instead of the attacked system: another model, and the same images embedded by it."""

    metric: DeepMetric
    scene: Scene


@dataclass(frozen=True)
class Attack:
    """A goal and an adversary; with a surrogate a transfer attack.

    Args:
        surrogate: the run whose network the adversary works on; the attacked one chooses targets and is scored. The
            caller loads it and hands it over as a `Surrogate`.
        energy_gallery: what the surrogate's embeddings are compared with. "surrogate" is the same gallery embedded by
            the surrogate (ECCV 2020). "target" is the attacked system's own embeddings, as RobRank does it, which
            compares the embeddings of two networks and needs them to be of one size.
    """

    goal: Goal
    adversary: Adversary
    surrogate: RunReference | None = None
    energy_gallery: Literal["surrogate", "target"] = "surrogate"

    def __post_init__(self) -> None:
        check_search(self.goal, self.adversary.search)

    def works_on(self, metric: DeepMetric, scene: Scene, surrogate: Surrogate | None = None) -> tuple[Embedder, Scene]:
        """The network that the adversary works on, and the scene of its energy.

        Raises:
            ValueError: for a transfer attack without its loaded surrogate, or a surrogate that does not fit.
        """
        if self.surrogate is None:
            return metric.embedder, scene
        if surrogate is None:
            raise ValueError(
                f"this attack uses the surrogate {self.surrogate.path}, which has not been loaded. Give it as "
                "surrogate=Surrogate(metric, scene)."
            )
        check_one_ranking(self.surrogate, surrogate.scene, scene)
        if self.energy_gallery == "surrogate":
            return surrogate.metric.embedder, surrogate.scene
        check_one_space(self.surrogate, surrogate.metric.embedder.dim, scene.clean.shape[1])
        return surrogate.metric.embedder, scene

    def __call__(
        self,
        metric: DeepMetric,
        scene: Scene,
        images: Float[Tensor, "b c h w"],
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
        surrogate: Surrogate | None = None,
    ) -> Outcome:
        """Attack `images`, whose clean embeddings the scene holds. `index` are the counters of the draws."""
        embedder, stand_in = self.works_on(metric, scene, surrogate)
        if self.surrogate is None or self.energy_gallery == "surrogate":
            stand_in = _as_run(embedder, stand_in, images)
        aims = self.goal.choose(scene, draws=draws, index=index)
        score = self.goal.score(scene, aims)
        perturbed = self.adversary(
            embedder,
            images,
            self.goal.energy(stand_in, aims),
            achieved=self.goal.achieved(stand_in, aims),
            coupled=self.goal.coupled,
            draws=draws,
            index=index,
        )
        z = metric.embed(perturbed)
        shift = embedding_shift(scene.distance, z, scene.clean)
        before = score(scene.clean) | {"shift": torch.zeros_like(shift)}
        return Outcome(perturbed, aims, before, score(z) | {"shift": shift})


def embedding_shift(distance: Distance, z: Float[Tensor, "b d"], clean: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
    """How far embeddings have moved; under an unbounded distance in the Euclidean one, since not all are 0 at rest."""
    if distance.largest is None:
        return Euclidean().pairs(distance.place(z), distance.place(clean))
    return distance.pairs(z, clean)


def _as_run(embedder: Embedder, scene: Scene, images: Float[Tensor, "b c h w"]) -> Scene:
    """The scene with clean embeddings as the embedder runs, which differ from the scored ones in bfloat16.

    An attack that leaves its clean embedding would else begin by following the rounding.
    """
    if in_float32(embedder) is embedder:
        return scene
    with frozen(embedder), torch.no_grad():
        return replace(scene, clean=embedder(images))


def check_one_space(surrogate: RunReference, dim: int, wanted: int) -> None:
    """Raise if embeddings of the surrogate cannot be compared with those of the attacked model."""
    if dim != wanted:
        raise ValueError(
            f"the surrogate {surrogate.path} embeds into {dim} dimensions and the attacked model into {wanted}, so its "
            'embeddings cannot be compared with the attacked gallery (energy_gallery="target"). Use its own gallery: '
            'energy_gallery="surrogate", the default.'
        )


def check_one_ranking(surrogate: RunReference, seen: Scene, attacked: Scene) -> None:
    """Raise if a surrogate does not rank what the attacked model ranks: its energy would be about other items."""
    mine, theirs = attacked.gallery.labels, seen.gallery.labels
    if len(mine) != len(theirs) or not torch.equal(mine, theirs.to(mine.device)):
        raise ValueError(
            f"the surrogate {surrogate.path} ranks {seen.size} items and the attacked model {attacked.size}, or items "
            "of other classes: one of them is a classifier, the other ranks images. Use a surrogate of the same task."
        )


def check_search(goal: Goal, search: Search) -> None:
    """Raise for a goal of one displacement for all images with a search that moves each image its own way."""
    if isinstance(goal, Agnostic) and not isinstance(search, Universal):
        raise ValueError(
            f"{type(goal).__name__} is about one displacement for all images, got {type(search).__name__}, which moves "
            "each image its own way. Use the search Universal."
        )
