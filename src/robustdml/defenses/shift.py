"""Training on images whose embedding was moved as far as possible."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary, embed_tuples
from robustdml.defenses.defense import Mean, clean_embeddings, mined, on_triplets_only
from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.energies import shift
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


def first_nudge(
    draws: Draws, index: Int[Tensor, "b"], clean: Float[Tensor, "b d"]
) -> Callable[[Tensor], Float[Tensor, "n d"]]:
    """By unit, what a reference is displaced by at step 0: where embedding and reference coincide is no direction."""

    def start(unit: Tensor) -> Tensor:
        noise = draws.integers("shift", index[unit], 3, tuple(clean.shape[1:])) - 1
        return 1e-7 * noise.to(clean.dtype)

    return start


def shifted(
    adversary: Adversary,
    embedder: Embedder,
    distance: Distance,
    images: Float[Tensor, "b c h w"],
    clean: Float[Tensor, "b d"],
    *,
    draws: Draws,
    index: Int[Tensor, "b"],
) -> Float[Tensor, "b c h w"]:
    """Every image moved away from its own embedding `clean`: the inner problem of EST, SES and REST."""
    energy = shift(distance, clean, first_nudge(draws, index, clean))
    return adversary(embedder, images, energy, draws=draws, index=index)


@dataclass(frozen=True)
class ShiftTraining:
    """Shift every image away from its own embedding, then train on the shifted images (EST, arXiv:2002.11293)."""

    adversary: Adversary

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
        """The loss mines on the adversarial embeddings."""
        clean = clean_embeddings(embedder, batch.images)
        moved = shifted(self.adversary, embedder, loss.distance, batch.images, clean, draws=draws, index=batch.index)
        z = embedder(moved)
        value = loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index)
        return Step(value, memory=memory, z=z, labels=batch.labels)

    def check(self, loss: Loss) -> None:
        """Any loss will do."""


@dataclass(frozen=True)
class ShiftSuppression:
    """The loss on clean images plus the mean shift that an adversary can cause (SES, arXiv:2106.03614).

    loss(z) + weight * mean_j d(z~_j, z_j), after TRADES (arXiv:1901.08573); gradient flows through both embeddings.

    Note: for raw Euclidean embeddings the published code normalises z~ and not z, so that the term is no shift;
    `as_published=True` does the same. On the sphere both agree.
    """

    adversary: Adversary
    weight: float = 1.0
    as_published: bool = False

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
        """The loss mines on the clean embeddings."""
        clean = clean_embeddings(embedder, batch.images)
        moved = shifted(self.adversary, embedder, loss.distance, batch.images, clean, draws=draws, index=batch.index)
        z = embedder(batch.images)  # clean before shifted, in two passes: BatchNorm sees it
        value = loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index)
        z_moved = embedder(moved)
        far = loss.distance.pairs(F.normalize(z_moved, dim=1) if self.as_published else z_moved, z).mean()
        logs = {"clean loss": float(value.detach()), "shift": float(far.detach())}
        return Step(value + self.weight * far, logs, memory, z=z, labels=batch.labels)

    def check(self, loss: Loss) -> None:
        """Any loss will do."""


@dataclass(frozen=True)
class AnchoredShiftTraining:
    """EST on positives and negatives alone, with clean anchors (REST, arXiv:2106.03614)."""

    adversary: Adversary

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
        """Triplets are mined on clean embeddings; one forward pass of all three roles."""
        clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws)
        rows = torch.cat([chosen.triplets.positive, chosen.triplets.negative])
        moved = shifted(
            self.adversary,
            embedder,
            loss.distance,
            batch.images[rows],
            clean[rows],
            draws=draws,
            index=batch.index[rows],
        )
        z = embed_tuples(embedder, torch.stack([chosen.images[:, 0], *moved.chunk(2)], dim=1))
        return chosen.step(z, memory)
