"""Adversarial training of classifiers."""

from dataclasses import dataclass

from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.defenses.defense import Mean
from robustdml.draws import Draws
from robustdml.energies import cross_entropy
from robustdml.losses import ClassLoss, Loss, prototypes
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class AdversarialTraining:
    """Raise the cross-entropy of every image, then train on what was found (Madry et al., arXiv:1706.06083).

    With a `Pgd` of one step it is training on the fast gradient sign (Goodfellow et al., arXiv:1412.6572).
    """

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
        """The adversary sees the network in evaluation mode; the loss is of the adversarial images alone."""
        classes = prototypes(_needs_scores(self, loss), batch.images.new_empty(0, embedder.dim))
        energy = cross_entropy(classes, batch.labels)
        found = self.adversary(embedder, batch.images, energy, draws=draws, index=batch.index)
        z = embedder(found)
        value = loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index)
        return Step(value, memory=memory, z=z, labels=batch.labels)

    def check(self, loss: Loss) -> None:
        """The loss must have class scores."""
        _needs_scores(self, loss)


def _needs_scores(defense: object, loss: Loss) -> ClassLoss:
    if isinstance(loss, ClassLoss):
        return loss
    raise ValueError(
        f"{type(defense).__name__} needs a loss on class scores, got {type(loss).__name__}. Use CrossEntropy or "
        "Hybrid, or train a metric adversarially with ShiftTraining or AntiCollapse."
    )
