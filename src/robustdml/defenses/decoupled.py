"""Training on triplets of which some roles are moved while the others stay (after RobDML)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustdml.adversary import Adversary, embed_tuples
from robustdml.defenses.defense import (
    Mean,
    Roles,
    clean_embeddings,
    mined,
    need_finite,
    needs_margin,
    on_triplets_only,
    places,
    with_roles,
)
from robustdml.defenses.schedule import in_smaller_steps
from robustdml.draws import Draws
from robustdml.energies import anchor_flight, closer_half, members, raised_loss, until_collapse
from robustdml.losses import Loss
from robustdml.mining import SemiHard
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class RoleAscent:
    """Raise the loss itself by moving some roles with the others fixed, then train on them (arXiv:2102.07265).

    max over ||r|| <= eps of L(a + r, p, n), or the same for other roles. A triplet that costs nothing does not move.
    """

    adversary: Adversary
    roles: Roles = "a"

    check = on_triplets_only

    def __call__(
        self,
        embedder: Embedder,
        loss: Loss,
        batch: Batch,
        *,
        memory: dict[str, Tensor],
        progress: float,
        draws: Draws,
        mean: Mean,
    ) -> Step:
        """One forward pass of all three roles."""
        clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws)
        moving = places(self.roles)
        triplets = members(torch.stack(chosen.triplets.of(clean), dim=1), moving)
        energy = raised_loss(lambda z, unit: chosen.loss.on_triplets(torch.stack(triplets(z, unit), dim=1)))
        moved = self.adversary(
            embedder, chosen.images[:, moving], energy, coupled=True, draws=draws, index=chosen.index
        )
        return chosen.step(embed_tuples(embedder, with_roles(chosen.images, moving, moved)), memory)


@dataclass(frozen=True)
class CollapseAware:
    """Move positives and negatives, or anchors, by turns, never beyond collapse (CA-TRIDE, arXiv:2312.07364).

    C = sum_i w^p_i d(a_i, p_i) - sum_i w^n_i d(a_i, n_i), with softmax weights of sharpness * d, says how collapsed a
    batch is. Even steps move (p, n) down max(0, -C), which ends where both weighted distances are equal. Odd steps move
    the anchor down max(0, C) + exp(-max(0, -C)) max(0, closer half of d(a, n) - mean d(a~, a)), the closer half of
    clean distances. The size of the inner steps grows with the training from 0. Triplets are semi-hard with a margin
    of `margin` (1 - progress / 2)^2; odd steps add half of
    max(0, closer half of d(a, p) - closer half of d(a, n) + `gap`) to the triplet loss.

    Args:
        sharpness: 10 on CUB, 9.5 on Cars-196, 2 on SOP.
        margin: of the semi-hard triplets at the start.
        gap: of the second term of the loss.
    """

    adversary: Adversary
    sharpness: float = 10.0
    margin: float = 0.2
    gap: float = 0.04
    share: ClassVar[float] = 0.5
    ramps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need_finite(self)

    def __call__(
        self,
        embedder: Embedder,
        loss: Loss,
        batch: Batch,
        *,
        memory: dict[str, Tensor],
        progress: float,
        draws: Draws,
        mean: Mean,
    ) -> Step:
        """`memory["odd"]` is 1 when the next step moves anchors."""
        odd = bool(memory.get("odd", 0))
        clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws, SemiHard(self.margin * (1 - progress / 2) ** 2))
        moving = [0] if odd else [1, 2]
        unmoved = torch.stack(chosen.triplets.of(clean), dim=1)
        of = members(unmoved, moving)
        if odd:
            energy = anchor_flight(loss.distance, of, self.sharpness, unmoved)
        else:
            energy = until_collapse(loss.distance, of, self.sharpness)
        moved = chosen.images[:, moving]
        if progress > 0:
            adversary = in_smaller_steps(self.adversary, progress)
            moved = adversary(embedder, moved, energy, coupled=True, draws=draws, index=chosen.index)
        z = embed_tuples(embedder, with_roles(chosen.images, moving, moved))
        step = chosen.step(z, memory)
        value, logs = step.loss, {"odd": float(odd)}
        if odd:
            a, p, n = z.unbind(dim=1)
            near, far = closer_half(loss.distance.pairs(a, p)), closer_half(loss.distance.pairs(a, n))
            value = value + self.share * (near - far + self.gap).clamp_min(0)
        return replace(step, loss=value, logs=logs, memory=memory | {"odd": torch.tensor(float(not odd))})

    def check(self, loss: Loss) -> None:
        """The triplet loss, and a search that walks."""
        needs_margin(self, loss, "its second term is one of triplets with a margin")
        in_smaller_steps(self.adversary, 1.0)
        if self.adversary.search.gradients == 1:
            raise ValueError(
                "CollapseAware lets its inner steps grow from 0, and a single one takes the whole radius from the "
                "start. Set --defense.adversary.search.steps to 2 or more."
            )
