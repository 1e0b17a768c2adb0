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
        own_copy: whether the query's clean copy counts as a same-class item. It does in the published figures, where
            the attack then mostly moves away from it; `rob28` and `rob224` keep that.
    """

    own_copy: Literal["excluded", "included"] = "excluded"
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
        unless_negative = zero.masked_fill(scene.same_class, torch.inf)

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            if not (z.requires_grad and torch.is_grad_enabled()):
                far, near = _extremes(scene, z, unless_positive, unless_negative, unit)
                return (far - near).clamp_min(0) * defined[unit]
            with torch.no_grad():
                d = scene.system.to_gallery(z)
                nearest = (d + rows_of(unless_positive, unit)).argmin(dim=1)
                farthest = d.sub_(rows_of(unless_negative, unit)).argmax(dim=1)
            both = scene.gallery.z[torch.stack([farthest, nearest], dim=1)]
            far, near = scene.distance.matrix(z[:, None], both)[:, 0].unbind(dim=1)
            return (far - near).clamp_min(0) * defined[unit]

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """recall@1."""
        return lambda z: {"recall@1": scene.recall(z)}

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """The first item is of another class."""
        return lambda z, unit: scene.of(unit).recall(z) == 0


def _extremes(
    scene: Scene, z: Float[Tensor, "b d"], unless_positive: Tensor, unless_negative: Tensor, unit: Int[Tensor, "b"]
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Distances to the farthest negative and the nearest positive, piece by piece, in the cache; masks by unit."""
    far, near = torch.full_like(z[:, 0], -torch.inf), torch.full_like(z[:, 0], torch.inf)
    for part, d in scene.system.to_gallery.pieces(z):
        near = torch.minimum(near, (d + unless_positive[:, part][unit]).amin(dim=1))
        far = torch.maximum(far, d.sub_(unless_negative[:, part][unit]).amax(dim=1))
    return far, near
