"""No defense."""

from dataclasses import dataclass

from torch import Tensor

from robustdml.defenses.defense import Mean
from robustdml.draws import Draws
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class Plain:
    """The loss on clean images."""

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
        """One forward pass; the loss mines on it."""
        z = embedder(batch.images)
        value = loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index)
        return Step(value, memory=memory, z=z, labels=batch.labels)

    def check(self, loss: Loss) -> None:
        """Any loss will do."""
