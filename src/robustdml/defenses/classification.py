"""Adversarial training on the loss itself."""

from dataclasses import dataclass

from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.defenses.defense import Mean
from robustdml.draws import Draws
from robustdml.energies import cross_entropy, raised_loss
from robustdml.losses import ClassLoss, Loss, prototypes
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class AdversarialTraining:
    """Raise the loss of every image, then train on what was found (Madry et al., arXiv:1706.06083).

    Of class scores the cross-entropy is raised, also where they stand beside a metric; of a metric the loss of the
    batch, be it on proxies (with frozen ones this is TeCoA, arXiv:2212.07016) or on all pairs. With a `Pgd` of one step
    it is training on the fast gradient sign (Goodfellow et al., arXiv:1412.6572).

    benign * loss(clean) + (1 - benign) * loss(adversarial); Goodfellow et al. publish 0.5, Madry et al. 0.

    Args:
        benign: share of the loss on clean images, in [0, 1).
    """

    adversary: Adversary
    benign: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.benign < 1:
            raise ValueError(f"AdversarialTraining needs a benign share in [0, 1), got {self.benign}.")

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
        """The adversary sees the network in evaluation mode."""
        self.check(loss)
        if isinstance(loss, ClassLoss):
            classes = prototypes(loss, batch.images.new_empty(0, embedder.dim))
            energy, coupled = cross_entropy(classes, batch.labels), False
        else:

            def of_batch(z: Tensor, rows: Tensor) -> Tensor:
                return loss(z, batch.labels[rows], draws=draws, index=batch.index[rows])

            energy, coupled = raised_loss(of_batch), True
        found = self.adversary(embedder, batch.images, energy, coupled=coupled, draws=draws, index=batch.index)

        def of(images: Tensor) -> tuple[Tensor, Tensor]:
            z = embedder(images)
            return loss(z, batch.labels, batch.triplets, draws=draws, index=batch.index), z

        clean = of(batch.images)[0] if self.benign else None  # first: BatchNorm sees it
        value, z = of(found)
        if clean is None:
            return Step(value, memory=memory, z=z, labels=batch.labels)
        both = self.benign * clean + (1 - self.benign) * value
        return Step(both, {"clean loss": float(clean.detach())}, memory, z=z, labels=batch.labels)

    def check(self, loss: Loss) -> None:
        """Any loss that does not choose triplets."""
        if getattr(loss, "miner", None) is not None:
            raise ValueError(
                f"AdversarialTraining raises the loss of a whole batch, and {type(loss).__name__} chooses triplets, "
                "other ones whenever images have moved. Use MinMax or RoleAscent, which hold them fixed, or a loss on "
                "class scores, proxies or all pairs (CrossEntropy, pml:NormalizedSoftmaxLoss, MultiSimilarity)."
            )
