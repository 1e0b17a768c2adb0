"""What a defense is, and what several of them need."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.draws import Draws
from robustdml.losses import Loss, Triplet, TripletLoss
from robustdml.losses.tuples import mine
from robustdml.models.embedder import Embedder, frozen
from robustdml.types import Batch, Step, Triplets

Mean = Callable[[Tensor], Tensor]
"""The average of a tensor over the processes of a run."""


@runtime_checkable
class Defense(Protocol):
    """One training step: embeddings of clean or adversarial images, and the loss on them."""

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
        """The step on one batch; `progress` in [0, 1] drives ramps, `draws` belongs to this step alone."""
        ...

    def check(self, loss: Loss) -> None:
        """Raise `ValueError` for a loss that this defense cannot train."""
        ...


def made_of(defense: Defense) -> Iterator[Defense]:
    """A defense and those inside it, at any depth."""
    yield defense
    names: list[str] = [field.name for field in fields(defense)] if is_dataclass(defense) else []
    for inner in (getattr(defense, name) for name in names):
        if isinstance(inner, Defense):
            yield from made_of(inner)


def clean_embeddings(embedder: Embedder, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    """Embeddings in evaluation mode and without gradient, for mining and as constants."""
    with frozen(embedder), torch.no_grad():
        return embedder(images)


def mined_on_clean(defense: Defense, embedder: Embedder, loss: Loss, batch: Batch, draws: Draws) -> Triplets:
    """The triplets a tuple-level defense perturbs: those of the data, else mined on clean embeddings."""
    needs_triplets(defense, loss)
    if batch.triplets is not None:
        return batch.triplets
    return mined(defense, loss, clean_embeddings(embedder, batch.images), batch, draws)


def mined(defense: Defense, loss: Loss, z: Float[Tensor, "b d"], batch: Batch, draws: Draws) -> Triplets:
    """The same among embeddings of the batch that are there already."""
    loss = needs_triplets(defense, loss)
    return batch.triplets or mine(loss, z, batch.labels, draws=draws, index=batch.index)


def needs_margin(defense: Defense, loss: Loss, why: str) -> Triplet:
    """`loss`, if it is the triplet loss, whose margin a step may ask for or replace.

    Raises:
        ValueError: saying for what the margin is needed.
    """
    if isinstance(loss, Triplet):
        return loss
    raise ValueError(
        f"{type(defense).__name__} needs the triplet loss: {why}. Got {type(loss).__name__}; use Triplet, or MinMax or "
        "AntiCollapse, which take any loss on triplets."
    )


def needs_triplets(defense: Defense, loss: Loss) -> TripletLoss:
    """`loss`, if it can be evaluated on given triplets.

    Raises:
        ValueError: naming losses and defenses that fit.
    """
    if isinstance(loss, TripletLoss):
        return loss
    raise ValueError(
        f"{type(defense).__name__} needs a loss defined on triplets, got {type(loss).__name__}. "
        "Use Triplet, Contrastive, Margin or Snr, or a batch-level defense such as ShiftTraining."
    )
