"""Mis-ranking: a query pushes its own class away and pulls another in."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, no_targets
from robustdml.attacks.scene import Scene, rows_of
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class Misrank:
    """LTM: [max_n d(e, x_n) - min_p d(e, x_p)]_+ over other-class n and same-class p, afresh at each step.

    Learning to misrank (arXiv:2004.04199) in RobRank's form.

    Args:
        pulled: the other-class item that is pulled in. The farthest is the published one; with the nearest the energy
            is min_n d - min_p d, by how much the first result is right, and falls to 0 when it turns wrong.
        own_copy: whether the query's clean copy counts as a same-class item. It does in the published figures, where
            the attack then mostly moves away from it; `rob28` and `rob224` keep that.
    """

    own_copy: Literal["excluded", "included"] = "excluded"
    pulled: Literal["farthest", "nearest"] = "farthest"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """No fixed targets."""
        return no_targets(scene)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge; zero for a query without any item of its class or without any other."""
        positive = scene.same_class if self.own_copy == "included" else scene.without_itself(scene.same_class, False)
        defined = positive.any(dim=1) & (~scene.same_class).any(dim=1)
        zero = torch.zeros((), dtype=scene.clean.dtype, device=scene.clean.device)
        unless_positive = zero.masked_fill(~positive, torch.inf)  # added to distances: cheaper than a mask at each step
        nearest = self.pulled == "nearest"
        unless_negative = zero.masked_fill(scene.same_class, torch.inf)

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            if not (z.requires_grad and torch.is_grad_enabled()):
                wrong, right = _extremes(scene, z, unless_positive, unless_negative, unit, nearest)
                return (wrong - right).clamp_min(0) * defined[unit]
            with torch.no_grad():
                d = scene.system.to_gallery(z)
                own = (d + rows_of(unless_positive, unit)).argmin(dim=1)
                masked = rows_of(unless_negative, unit)
                other = d.add_(masked).argmin(dim=1) if nearest else d.sub_(masked).argmax(dim=1)
            both = scene.gallery.z[torch.stack([other, own], dim=1)]
            wrong, right = scene.distance.matrix(z[:, None], both)[:, 0].unbind(dim=1)
            return (wrong - right).clamp_min(0) * defined[unit]

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1."""
        return lambda z: {"recall@1": scene.recall(z)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The first item is of another class."""
        return lambda z, unit: scene.of(unit).recall(z) == 0


def _extremes(
    scene: Scene,
    z: Float[Tensor, "b d"],
    unless_positive: Tensor,
    unless_negative: Tensor,
    unit: Int[Tensor, "b"],
    nearest: bool,
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Distances to the nearest or farthest negative and the nearest positive, piece by piece, in the cache; masks by
    unit.
    """
    own = torch.full_like(z[:, 0], torch.inf)
    other = own if nearest else -own
    for part, d in scene.system.to_gallery.pieces(z):
        own = torch.minimum(own, (d + unless_positive[:, part][unit]).amin(dim=1))
        masked = unless_negative[:, part][unit]
        if nearest:
            other = torch.minimum(other, d.add_(masked).amin(dim=1))
        else:
            other = torch.maximum(other, d.sub_(masked).amax(dim=1))
    return other, own
