"""Attacks on classifiers: an image wants to be ranked with the prototype of a wrong class."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score
from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class Misclassify:
    """Cross-entropy over the distances to one prototype per class: logits are -d(e, prototype).

    With the rows of the identity as prototypes and `Dot`, the embedding of a classifier is its logits. An untargeted
    attack minimises -CE(own class), a targeted one CE(aimed class). An attack without any bound but the box is one
    with eps = 1.

    Args:
        target: "any" wrong class (untargeted), the "next" class of the gallery (the first after the last), or a
            "random" other one.
    """

    target: Literal["any", "next", "random"] = "any"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """One prototype each: the image's own (untargeted) or the one to be reached.

        Raises:
            ValueError: unless the gallery holds exactly one prototype of each class asked for, and two in all.
        """
        same, classes = scene.same_class, scene.size
        if scene.itself is not None or classes < 2 or len(scene.gallery.labels.unique()) < classes:
            raise ValueError(
                f"Misclassify needs a gallery of one prototype per class, got {classes} items of "
                f"{len(scene.gallery.labels.unique())} classes. To attack a ranking of images use another "
                "goal, e.g. ES."
            )
        if not bool(same.any(dim=1).all()):
            lost = scene.labels[~same.any(dim=1)].unique().tolist()
            raise ValueError(f"Misclassify: the gallery has no prototype of class {lost[0]} ({len(lost)} are missing).")
        own = same.int().argmax(dim=1, keepdim=True)
        if self.target == "any":
            return own
        further = 1 + draws.integers("target", index, classes - 1, (1,)) if self.target == "random" else 1
        return (own + further) % classes

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """-CE of the own class, or CE of the aimed one."""
        sign = -1 if self.target == "any" else 1

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            logits = -scene.system.to_gallery(z)
            return sign * torch.nn.functional.cross_entropy(logits, aims[unit, 0], reduction="none")

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1, which is the accuracy; targeted also `reached`, 1 where the aimed class comes first."""

        def score(z: Tensor) -> dict[str, Tensor]:
            found = {"recall@1": scene.recall(z)}
            if self.target != "any":
                found["reached"] = self._reached(scene, aims, z).to(z.dtype)
            return found

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Another class comes first (untargeted), or the aimed one does."""
        if self.target == "any":
            return lambda z, unit: scene.of(unit).recall(z) == 0
        return lambda z, unit: self._reached(scene.of(unit), aims[unit], z)

    def _reached(self, scene: Scene, aims: Tensor, z: Tensor) -> Tensor:
        d = scene.precise_distances(z)
        return d.gather(1, aims)[:, 0] <= d.amin(dim=1) + scene.system.resolution
