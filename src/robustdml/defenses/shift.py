"""Training on images whose embedding was moved as far as possible."""

from dataclasses import dataclass

from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.defenses.defense import Mean, clean_embeddings
from robustdml.draws import Draws
from robustdml.energies import shift
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


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

        def start(unit: Tensor) -> Tensor:  # the gradient of a shift is not defined without a first displacement
            noise = draws.integers("shift", batch.index[unit], 3, tuple(clean.shape[1:])) - 1
            return 1e-7 * noise.to(clean.dtype)

        energy = shift(loss.distance, clean, start)
        shifted = self.adversary(embedder, batch.images, energy, draws=draws, index=batch.index)
        z = embedder(shifted)
        return Step(loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index), memory=memory)

    def check(self, loss: Loss) -> None:
        """Any loss will do."""
