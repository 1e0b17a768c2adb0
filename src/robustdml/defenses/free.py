"""Adversarial training for free."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.adversary import Ball, embed_tuples
from robustdml.defenses.defense import Mean, mined_on_clean, on_triplets_only
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step, Triplets


@dataclass(frozen=True)
class FreeTraining:
    """One backward pass moves weights and images, several times per batch (FreeAT, arXiv:1904.12843, on triplets).

    Every batch is trained on `repeats` times; a recipe divides its epochs by as much. The perturbation belongs to the
    place in the batch, not to the image, and is carried from batch to batch. Experimental: published drafts are weak
    and prone to collapse.

    Note: RobRank's own step raises an error on entry; this is what the body behind it defines, with its wipe mended.

    Args:
        ball: around each image. A radius of 0 is training on clean images with repeats (suffix `fatnone`).
        step_size: of the one step per repeat, in units of the ball's norm.
        forget_above: hardness above which the perturbation of a triplet is set back to zero (suffix `fatamdsemi`:
            -0.2); `None` keeps all (suffix `fatamd`).
    """

    ball: Ball
    step_size: float
    repeats: int = 4
    forget_above: float | None = None

    check = on_triplets_only

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"FreeTraining needs repeats >= 1, got {self.repeats}.")
        if not 0 <= self.step_size < float("inf"):
            raise ValueError(f"FreeTraining needs a finite step_size >= 0, got {self.step_size}.")

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
        """One repeat; `memory` holds the perturbation, and between repeats their number and the mined triplets."""
        repeat = int(memory["repeat"]) if "repeat" in memory else 0
        if repeat:
            batch = replace(batch, triplets=_same(memory, batch))
        chosen = mined_on_clean(self, embedder, loss, batch, draws)
        images, triplets = chosen.images, chosen.triplets
        before = memory.get("perturbation", images[:0]).to(images)
        perturbation = _in_places(before, images).requires_grad_()
        z = embed_tuples(embedder, (images + perturbation).clamp(0, 1))
        again = repeat + 1 < self.repeats

        def moved() -> dict[str, Tensor]:
            after = self._moved(perturbation, hardness(loss.distance, *z.detach().unbind(dim=1)))
            kept = {k: v for k, v in memory.items() if k not in ("repeat", "triplets", "index")}
            kept["perturbation"] = torch.cat([after, before[len(after) :]])
            if not again:
                return kept
            rows = torch.stack([triplets.anchor, triplets.positive, triplets.negative])
            return kept | {"repeat": rows.new_tensor(repeat + 1), "triplets": rows, "index": batch.index}

        return replace(chosen.step(z, memory), again=again, after_backward=moved)

    def _moved(self, perturbation: Tensor, h: Float[Tensor, "t"]) -> Tensor:
        """The perturbation after an ascent step along the gradient that the weights used."""
        gradient = perturbation.grad if perturbation.grad is not None else torch.zeros_like(perturbation)
        after = self.ball.clip(perturbation.detach() + self.step_size * self.ball.direction(gradient))
        if self.forget_above is not None:
            after[h > self.forget_above] = 0
        return after


def _in_places(perturbation: Tensor, images: Float[Tensor, "t 3 c h w"]) -> Tensor:
    """The perturbation for so many triplets: the leading ones, zero where there was none before."""
    missing = images[len(perturbation) :]
    return torch.cat([perturbation[: len(images)], torch.zeros_like(missing)]).detach()


def _same(memory: dict[str, Tensor], batch: Batch) -> Triplets:
    """The triplets of the first repeat.

    Raises:
        ValueError: if this is not the batch of the first repeat.
    """
    if not torch.equal(memory["index"], batch.index):
        raise ValueError("FreeTraining repeats whole batches and got another one. Set accumulate to 1.")
    return Triplets(*memory["triplets"])
