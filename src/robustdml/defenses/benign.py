"""Clean images beside what a defense trains on."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from robustdml.defenses.defense import Defense, Mean, first_memory, need_finite
from robustdml.distance import Cosine, Spherical
from robustdml.draws import Draws
from robustdml.losses import ClassLoss, FrozenPrototypes, Loss, MinedLoss, MultiSimilarity
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class Benign:
    """Another defense, and beside it a loss of its own on the clean images of the batch.

    loss of the inner defense + weight * beside(clean). What the adversary takes from recall, the clean images give back
    where both can be had.

    Args:
        inner: any defense; its loss is that of the recipe.
        beside: a loss without weights that ranks as the recipe's does.
        weight: of the clean loss.
    """

    inner: Defense
    beside: Loss = field(default_factory=MultiSimilarity)
    weight: float = 0.5

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
        """The step of the inner defense, then one forward pass of the clean images."""
        step = self.inner(embedder, loss, batch, memory=memory, progress=progress, draws=draws, mean=mean)
        z = embedder(batch.images)
        triplets = batch.triplets if isinstance(self.beside, MinedLoss) else None
        clean = self.beside(z, batch.labels, triplets, draws=draws.under("benign"), index=batch.index)
        logs = step.logs | {"benign": float(clean.detach())}
        return replace(step, loss=step.loss + self.weight * clean, logs=logs)

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What the inner defense remembers."""
        return first_memory(self.inner, embedder)

    def check(self, loss: Loss) -> None:
        """The inner defense must be able to train it; both losses must rank alike, and the clean one learn nothing."""
        self.inner.check(loss)
        knows_classes = isinstance(self.beside, (ClassLoss, FrozenPrototypes))
        if knows_classes or any(self.beside.build(2, 2).parameter_groups().values()):
            raise ValueError(
                f"Benign builds no weights and no classes for its loss, and {type(self.beside).__name__} has some. "
                "Make it the loss of the recipe, or take MultiSimilarity, Triplet or Contrastive beside it."
            )
        own, other = loss.distance, self.beside.distance
        directions = (Cosine, Spherical)
        if own != other and not (isinstance(own, directions) and isinstance(other, directions)):
            raise ValueError(
                f"Benign trains {type(self.beside).__name__} with {type(other).__name__} beside {type(loss).__name__} "
                f"with {type(own).__name__}: one embedding cannot serve both. Set --defense.beside.distance "
                f"{type(own).__name__}, or take another loss."
            )
