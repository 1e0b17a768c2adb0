"""Training on triplets of which every member may move."""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from robustdml.adversary import Adversary, embed_tuples
from robustdml.defenses.defense import (
    Mean,
    clean_embeddings,
    mined,
    mined_on_clean,
    needs_margin,
    on_triplets_only,
)
from robustdml.draws import Draws
from robustdml.energies import anchored_hardening, collapse_or_hardening, hardening, triplet_collapse
from robustdml.losses import Loss, Triplet
from robustdml.models.embedder import Embedder, evaluating
from robustdml.types import Batch, Step

FIRST_LOSS = 2.0
"""What a moving stop takes for the loss before the first step: the largest hardness on the sphere."""


@dataclass(frozen=True)
class MinMax:
    """Make triplets as hard as possible, then train on them (AMD, also MMT, arXiv:2106.03614).

    The min-max training of Madry et al. (arXiv:1706.06083) on triplets. With many inner steps it collapses: on CUB with
    a ResNet-18 for any number tried, on Fashion-MNIST it is published with 7 steps.
    """

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
        """One forward pass of all three roles."""
        chosen = mined_on_clean(self, embedder, loss, batch, draws)
        energy = hardening(loss.distance)
        hard = self.adversary(embedder, chosen.images, energy, draws=draws, index=chosen.index)
        return chosen.step(embed_tuples(embedder, hard), memory)


@dataclass(frozen=True)
class AnchoredMinMax:
    """Make triplets as hard as positive and negative can, with clean anchors, then train on them (RAMD, RobRank).

    Note: the published inner problem compares unit vectors of positive and negative with the raw anchor. On the sphere
    the gradient to p and n has the same direction for every length of the anchor, so that the steps are the same.
    """

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
        """One forward pass of all three roles."""
        clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws)
        energy = anchored_hardening(loss.distance, clean[chosen.triplets.anchor])
        hard = self.adversary(embedder, chosen.images[:, 1:], energy, draws=draws, index=chosen.index)
        return chosen.step(embed_tuples(embedder, torch.cat([chosen.images[:, :1], hard], dim=1)), memory)


@dataclass(frozen=True)
class TripletCollapse:
    """Pull all three members of a triplet together, then train them apart again (three-body collapse, TBC, RobRank)."""

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
        """One forward pass of all three roles."""
        chosen = mined_on_clean(self, embedder, loss, batch, draws)
        energy = triplet_collapse(loss.distance)
        collapsed = self.adversary(embedder, chosen.images, energy, draws=draws, index=chosen.index)
        return chosen.step(embed_tuples(embedder, collapsed), memory)


@dataclass(frozen=True)
class AlternatingCollapse:
    """ACT or AMD by the toss of a coin at every inner step, all three members moving (ACAP, RobRank).

    The coin is that of the training step: the same for all rows and on all processes.
    """

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
        """One forward pass of all three roles."""
        chosen = mined_on_clean(self, embedder, loss, batch, draws)
        energy = collapse_or_hardening(loss.distance, draws)
        moved = self.adversary(embedder, chosen.images, energy, draws=draws, index=chosen.index)
        return chosen.step(embed_tuples(embedder, moved), memory)


@dataclass(frozen=True)
class StoppedMinMax:
    """Make triplets harder only up to a stop that rises as the loss falls (AMD-semi, prototype of arXiv:2203.01439).

    A triplet moves until H = -margin * sqrt(l / margin), with l the loss of the step before clipped to [0, margin]: at
    first until -margin, where the loss vanishes, later towards 0. The published inner problem ends when it saturates:
    give `Pgd` a `saturation` of 1e-7.

    Args:
        structure: weight of mean_t [d(a, a~) - d(a, p)]_+, clean anchor and positive against the moved anchor (AAP,
            published with 1.0); the clean pass is then in evaluation mode with gradient.
    """

    adversary: Adversary
    structure: float = 0.0

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
        """`memory["previous"]` is the loss of the step before, averaged over processes."""
        triplet_loss = self._fitting(loss)
        if self.structure:
            with evaluating(embedder):
                clean = embedder(batch.images)
        else:
            clean = clean_embeddings(embedder, batch.images)
        chosen = mined(self, loss, clean, batch, draws)
        stop = self.stop(float(memory.get("previous", FIRST_LOSS)), triplet_loss.margin)
        energy = hardening(loss.distance, stop)
        hard = self.adversary(embedder, chosen.images, energy, draws=draws, index=chosen.index)
        z = embed_tuples(embedder, hard)
        step = chosen.step(z, memory)
        value, logs = step.loss, {"stop": -stop}
        if self.structure:
            anchor, positive, _ = chosen.triplets.of(clean)
            kept = triplet_loss.on_triplets(torch.stack([anchor, z[:, 0], positive], dim=1), margin=0.0)
            value, logs = value + self.structure * kept, logs | {"structure": float(kept.detach())}
        return replace(step, loss=value, logs=logs, memory=memory | {"previous": mean(value.detach())})

    @staticmethod
    def stop(previous: float, margin: float) -> float:
        """The easiness -H at which a triplet stops moving, after a step with loss `previous`."""
        return margin * sqrt(min(max(previous, 0.0), margin) / margin)

    def _fitting(self, loss: Loss) -> Triplet:
        return needs_margin(self, loss, "its stop is a fraction of the margin")

    def check(self, loss: Loss) -> None:
        """The triplet loss with a positive margin."""
        if not self._fitting(loss).margin > 0:
            raise ValueError(f"StoppedMinMax needs a margin > 0: its stop is a fraction of it. Got {loss}.")
