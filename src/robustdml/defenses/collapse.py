"""Training against collapsed pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustdml.adversary import Adversary, embed_tuples
from robustdml.defenses.defense import Mean, mined_on_clean, needs_triplets
from robustdml.draws import Draws
from robustdml.energies import collapse
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class AntiCollapse:
    """Pull positive and negative together, then train the triplet apart again (ACT, arXiv:2106.03614)."""

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
        """The anchor stays clean; full collapse gives hardness 0, that is a loss of one margin."""
        triplets = mined_on_clean(self, embedder, loss, batch, draws)
        anchor, positive, negative = triplets.of(batch.images)
        pairs = torch.stack([positive, negative], dim=1)
        index = batch.index[triplets.anchor]
        collapsed = self.adversary(embedder, pairs, collapse(loss.distance), draws=draws, index=index)
        others = embed_tuples(embedder, collapsed)  # before the anchors: this order of forward passes is part of
        z = torch.cat([embedder(anchor)[:, None], others], dim=1)  # the method, since BatchNorm sees it
        return Step(needs_triplets(self, loss).on_triplets(z), memory=memory)

    def check(self, loss: Loss) -> None:
        """The loss must be defined on triplets."""
        needs_triplets(self, loss)
