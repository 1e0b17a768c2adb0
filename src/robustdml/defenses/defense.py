"""What a defense is, and what several of them need."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.draws import Draws
from robustdml.losses import Loss, Triplet, TripletLoss
from robustdml.losses.tuples import mine
from robustdml.mining import Miner
from robustdml.models.embedder import Embedder, frozen
from robustdml.types import Batch, Step, Triplets

Roles = Literal["apn", "ap", "an", "pn", "a", "p", "n"]
"""Which of anchor, positive and negative move."""
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


@runtime_checkable
class Remembering(Protocol):
    """A defense that begins with a memory, and one around such a defense."""

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What it remembers before the first step."""
        ...


def first_memory(defense: Defense, embedder: Embedder) -> dict[str, Tensor]:
    """The memory that a training begins with."""
    return defense.begin(embedder) if isinstance(defense, Remembering) else {}


def adversary_of(defense: Defense) -> Adversary | None:
    """Who moves the images, for defenses that let one choose; of one around another, that of the other."""
    found = getattr(defense, "adversary", None)
    if isinstance(found, Adversary):
        return found
    inner = getattr(defense, "inner", None)
    return adversary_of(inner) if isinstance(inner, Defense) else None


def with_adversary(defense: Defense, adversary: Adversary) -> Defense:
    """The same defense with another adversary in place of the one that `adversary_of` finds."""
    if isinstance(getattr(defense, "adversary", None), Adversary):
        return replace(defense, adversary=adversary)  # type: ignore[type-var]  # a dataclass with that field
    inner = with_adversary(defense.inner, adversary)  # type: ignore[attr-defined]  # as `adversary_of` found it
    return replace(defense, inner=inner)  # type: ignore[type-var]


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


@dataclass(frozen=True)
class Mined:
    """The triplets that a tuple-level defense trains on.

    Attributes:
        loss: what they are trained with.
        triplets: rows of the batch.
        images: clean, of anchor, positive and negative.
        index, labels: of the anchors; an adversary draws by this index.
    """

    loss: TripletLoss
    triplets: Triplets
    images: Float[Tensor, "t 3 c h w"]
    index: Int[Tensor, "t"]
    labels: Int[Tensor, "t"]

    def step(self, z: Float[Tensor, "t 3 d"], memory: dict[str, Tensor]) -> Step:
        """The loss on embeddings of anchor, positive and negative, however they were moved."""
        value = self.loss.on_triplets(z)
        return Step(value, memory=memory, z=z, labels=self.labels, triplets=self.triplets)


def mined_on_clean(defense: Defense, embedder: Embedder, loss: Loss, batch: Batch, draws: Draws) -> Mined:
    """The triplets a tuple-level defense perturbs: those of the data, else mined on clean embeddings."""
    fitting = needs_triplets(defense, loss)
    if batch.triplets is not None:
        return _of_batch(fitting, batch, batch.triplets)
    return mined(defense, loss, clean_embeddings(embedder, batch.images), batch, draws)


def mined(
    defense: Defense, loss: Loss, z: Float[Tensor, "b d"], batch: Batch, draws: Draws, miner: Miner | None = None
) -> Mined:
    """The same among embeddings of the batch that are there already, by `miner` instead of the loss's own."""
    loss = needs_triplets(defense, loss)
    found = batch.triplets or mine(loss, z, batch.labels, draws=draws, index=batch.index, miner=miner)
    return _of_batch(loss, batch, found)


def _of_batch(loss: TripletLoss, batch: Batch, found: Triplets) -> Mined:
    images = torch.stack(found.of(batch.images), dim=1)
    return Mined(loss, found, images, batch.index[found.anchor], batch.labels[found.anchor])


def places(roles: Roles) -> list[int]:
    """Where the roles stand in a triplet."""
    return ["apn".index(role) for role in roles]


def with_roles(
    images: Float[Tensor, "t 3 c h w"], moving: list[int], moved: Float[Tensor, "t k c h w"]
) -> Float[Tensor, "t 3 c h w"]:
    """Triplets of which some roles are replaced."""
    return images.index_copy(1, torch.tensor(moving, device=images.device), moved)


def on_triplets_only(self: Defense, loss: Loss) -> None:
    """The loss must be defined on triplets."""
    needs_triplets(self, loss)


def need_finite(defense: object) -> None:
    """Raise unless all numbers among the settings are finite and not negative: NaN would switch an adversary off.

    Raises:
        ValueError: naming those that are not.
    """
    wrong = [f"{n} {v}" for n, v in vars(defense).items() if isinstance(v, float) and not 0 <= v < float("inf")]
    if wrong:
        raise ValueError(f"{type(defense).__name__} needs finite numbers >= 0, got {', '.join(wrong)}.")


def needs_margin(defense: Defense, loss: Loss, why: str) -> Triplet:
    """`loss`, if it is the triplet loss, whose margin a step may ask for or replace.

    Raises:
        ValueError: saying for what the margin is needed.
    """
    if isinstance(loss, Triplet):
        return loss
    instead = ", or MinMax or AntiCollapse, which take any loss on triplets" if isinstance(loss, TripletLoss) else ""
    raise ValueError(
        f"{type(defense).__name__} needs the triplet loss: {why}. Got {type(loss).__name__}; use Triplet{instead}."
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
