"""Training on triplets of which the hardness is chosen."""

import warnings
from dataclasses import dataclass, field, replace

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
    needs_triplets,
    places,
    with_roles,
)
from robustdml.defenses.destinations import Constant, Destination, Gradual, Sampled
from robustdml.draws import Draws
from robustdml.energies import Objective, manipulation, members
from robustdml.losses import Loss, Triplet, TripletLoss
from robustdml.mining import Miner
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class HardnessManipulation:
    """Raise the hardness of source triplets up to a destination and not beyond, then train on them (RobDML, HM[S,D]).

    min over ||r|| <= eps of |max(0, H_D - H(a + r_a, p + r_p, n + r_n))|^2 (arXiv:2203.01439, equation 2). A triplet
    that is as hard as its destination moves no further. The published inner problem ends when it saturates: give `Pgd`
    a `saturation` of 1e-7.

    Args:
        source: finds the triplets; `None` is the miner of the loss.
        destination: how hard they become: `Sampled` (HM[S,M]), `Constant`, or `Gradual` (g_LGA).
        objective: ET is the published one; L2 also makes triplets easier that are harder than their destination. KL is
            experimental: hardness is negative, so that the divergence is not defined.
        roles: who moves; "pn" is the published variant with a fixed anchor (`rh`).
        structure: weight of mean_t [d(a, a~) - d(a, p) + structure_margin]_+ (ICS, intra-class structure), with a and p
            clean, in training mode. Published with 0.5, on SOP 0.05.
        structure_margin: published with 0; 0.2 costs recall.
        first_loss: what a gradual destination takes for the loss before the first step.
        averaged: whether the remembered loss is the mean over processes; the published code keeps one each.
    """

    adversary: Adversary
    source: Miner | None = None
    destination: Destination = field(default_factory=Sampled)
    objective: Objective = "ET"
    roles: Roles = "apn"
    structure: float = 0.0
    structure_margin: float = 0.0
    first_loss: float = 2.0
    averaged: bool = True

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
        """`memory["previous"]` is the adversarial loss of the step before, without the structure term."""
        triplet_loss = self._fitting(loss)
        clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws, self.source)
        wanted = self.destination(
            clean, batch.labels, chosen.triplets, loss.distance,
            previous=self._previous(memory, progress), draws=draws, index=batch.index,
        )  # fmt: skip
        moving = places(self.roles)
        triplets = members(torch.stack(chosen.triplets.of(clean), dim=1), moving)
        energy = manipulation(loss.distance, wanted, self.objective, triplets)
        coupled = self.objective == "KL"
        moved = self.adversary(
            embedder, chosen.images[:, moving], energy, coupled=coupled, draws=draws, index=chosen.index
        )
        benign = embed_tuples(embedder, chosen.images[:, :2]) if self.structure else None  # first: BatchNorm sees it
        z = embed_tuples(embedder, with_roles(chosen.images, moving, moved))
        step = chosen.step(z, memory)
        logs = {"destination": float(wanted.mean())}
        value = step.loss
        if benign is not None:
            anchor, positive = benign.unbind(dim=1)
            kept = triplet_loss.on_triplets(torch.stack([anchor, z[:, 0], positive], dim=1), self.structure_margin)
            value, logs = value + self.structure * kept, logs | {"structure": float(kept.detach())}
        previous = step.loss.detach()
        return replace(
            step, loss=value, logs=logs, memory=memory | {"previous": mean(previous) if self.averaged else previous}
        )

    def __post_init__(self) -> None:
        need_finite(self)

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What stands for the loss before the first step."""
        return {"previous": torch.tensor(self.first_loss)}

    def _previous(self, memory: dict[str, Tensor], progress: float) -> float:
        """The loss of the step before, or what stands for it."""
        if "previous" not in memory and progress > 0 and self.destination.follows_loss:
            warnings.warn(
                f"the checkpoint holds no loss of the step before, so {type(self.destination).__name__} begins with "
                f"first_loss = {self.first_loss}, as at the start of a training.",
                stacklevel=2,
            )
        return float(memory.get("previous", self.first_loss))

    def _fitting(self, loss: Loss) -> TripletLoss:
        return (
            needs_margin(self, loss, "its structure term has a margin (structure 0 leaves it out)")
            if self.structure
            else needs_triplets(self, loss)
        )

    def check(self, loss: Loss) -> None:
        """A loss on triplets; with a structure term the triplet loss."""
        fitting = self._fitting(loss)
        largest, wanted = fitting.distance.largest, self.destination
        most = wanted.hardness if isinstance(wanted, Constant) else getattr(wanted, "raised", 0.0)
        if largest is not None and most > largest:
            raise ValueError(
                f"HardnessManipulation cannot raise hardness to {most}: {type(fitting.distance).__name__} "
                f"allows {largest} at most. For triplets as hard as possible use MinMax."
            )
        if largest is not None and isinstance(wanted, Constant) and wanted.hardness <= -largest:
            warnings.warn(
                f"every triplet is harder than {wanted.hardness} already, so that none would be moved. Use a "
                f"destination above {-largest}, e.g. -margin / 2.",
                stacklevel=2,
            )
        if isinstance(wanted, Gradual) and isinstance(loss, Triplet) and wanted.margin != loss.margin:
            warnings.warn(
                f"the gradual adversary begins at hardness {-wanted.margin}, and the triplet loss has margin "
                f"{loss.margin}: published is the same number for both. Set --defense.destination.margin and "
                f"--defense.destination.ceiling to {loss.margin}.",
                stacklevel=2,
            )
        if self.structure and "a" not in self.roles:
            warnings.warn(
                f"the structure term keeps a moved anchor near itself, and of the roles {self.roles!r} none is the "
                "anchor: the term is zero. Set --defense.structure 0, or --defense.roles apn.",
                stacklevel=2,
            )
        if isinstance(wanted, Constant) and wanted.hardness >= 0:
            warnings.warn(
                f"a destination of {wanted.hardness} asks for negatives that are no farther than positives; published "
                "trainings with 0 collapsed to one point (R@1 0.8 on CUB). Use a negative number, e.g. -margin / 2.",
                stacklevel=2,
            )
        if self.objective == "KL" and not isinstance(wanted, Sampled):
            warnings.warn(
                "KL compares how hardness is distributed over the batch, and this destination is the same for all "
                "triplets: what moves them is mostly rounding noise. Use objective ET, or Sampled as the destination.",
                stacklevel=2,
            )
