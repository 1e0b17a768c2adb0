"""Training against collapsed pairs."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdml.adversary import Adversary, embed_tuples
from robustdml.defenses.defense import Mean, clean_embeddings, mined, mined_on_clean, on_triplets_only
from robustdml.distance import Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.energies import collapse, collapse_or_split
from robustdml.losses import Contrastive, Loss, Triplet
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class AntiCollapse:
    """Pull positive and negative together, then train the triplet apart again (ACT, arXiv:2106.03614)."""

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
        """The anchor stays clean; full collapse gives hardness 0, that is a loss of one margin."""
        chosen = mined_on_clean(self, embedder, loss, batch, draws)
        energy = collapse(loss.distance)
        collapsed = self.adversary(embedder, chosen.images[:, 1:], energy, draws=draws, index=chosen.index)
        others = embed_tuples(embedder, collapsed)  # before the anchors: this order of forward passes is part of
        anchors = embedder(chosen.images[:, 0])  # the method, since BatchNorm sees it
        return chosen.step(torch.cat([anchors[:, None], others], dim=1), memory)


@dataclass(frozen=True)
class AdaptedAntiCollapse:
    """ACT with the inner problem chosen by what the loss still asks of a triplet (RobRank's suffix `pa`).

    Where the negative is inside the margin of the contrastive loss, positive and negative are pulled together and the
    anchor stays clean, as in ACT; elsewhere only the positive pair can still teach, so anchor and positive are driven
    apart and the negative stays clean. For the triplet loss it is ACT.

    Note: the published code holds the anchors constant and does not normalise them although the loss lives on the
    sphere, and it puts the pair driven apart into the places of positive and negative; `as_published=True` does the
    same, for the contrastive loss on the sphere alone. It is in no published table.
    """

    adversary: Adversary
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
        """One forward pass of all three roles."""
        self.check(loss)
        if not isinstance(loss, Contrastive):
            act = AntiCollapse(self.adversary)
            return act(embedder, loss, batch, memory=memory, progress=progress, draws=draws, mean=mean)
        clean = clean_embeddings(embedder, batch.images)
        raw = replace(loss, distance=Euclidean()) if self.as_published else loss
        chosen = replace(mined(self, loss, clean, batch, draws), loss=raw)
        close = raw.active(torch.stack(chosen.triplets.of(clean), dim=1))
        here = close[:, None, None, None, None]
        pairs = torch.where(here, chosen.images[:, 1:], chosen.images[:, :2])
        energy = collapse_or_split(loss.distance, close)
        moved = self.adversary(embedder, pairs, energy, draws=draws, index=chosen.index)
        if self.as_published:
            others = F.normalize(embed_tuples(embedder, moved), dim=-1)
            z = torch.cat([clean[chosen.triplets.anchor][:, None], others], dim=1)
        else:
            anchor, negative = chosen.images[:, :1], chosen.images[:, 2:]
            tuples = torch.where(here, torch.cat([anchor, moved], dim=1), torch.cat([moved, negative], dim=1))
            z = embed_tuples(embedder, tuples)
        return chosen.step(z, memory)

    def check(self, loss: Loss) -> None:
        """Triplet or contrastive loss; as published, on the sphere."""
        if not isinstance(loss, (Triplet, Contrastive)):
            raise ValueError(
                f"AdaptedAntiCollapse knows what Triplet and Contrastive ask of a triplet, got {type(loss).__name__}. "
                "Use one of these, or AntiCollapse."
            )
        if self.as_published and loss.distance != Spherical():
            raise ValueError(
                "AdaptedAntiCollapse(as_published=True) exists on the sphere alone, got "
                f"{type(loss.distance).__name__}. Use Spherical() as the distance, or as_published=False."
            )
