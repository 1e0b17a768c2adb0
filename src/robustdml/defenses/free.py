"""Adversarial training for free."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary, Ball, Pgd, embed_tuples
from robustdml.adversary.pgd import input_gradient, usable
from robustdml.defenses.decoupled import CollapseAware
from robustdml.defenses.defense import (
    Defense,
    Mean,
    adversary_of,
    first_memory,
    made_of,
    mined_on_clean,
    on_triplets_only,
    with_adversary,
)
from robustdml.defenses.schedule import Growing
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Achieved, Batch, PixelEnergy, Step, Triplets, arange_like


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


@dataclass(frozen=True)
class Replay:
    """Any defense with one inner step at a time: every batch is trained on `repeats` times, each repeat begins where
    the inner problem of the one before ended (after arXiv:1904.12843).

    A repeat costs one gradient for the images and one for the weights, whatever the number of inner steps was; a recipe
    divides its epochs by the repeats. The perturbation belongs to the place in the batch and is carried to the next
    one. In `FreeTraining` both gradients are the same, which only min-max training can have.

    Args:
        inner: a defense with an adversary, whose ball and step size are kept.
        repeats: per batch; the triplets stay those of the first.
    """

    inner: Defense
    repeats: int = 4

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"Replay needs repeats >= 1, got {self.repeats}.")
        self._search  # noqa: B018  # raises
        inside = list(made_of(self.inner))
        if any(isinstance(d, CollapseAware) for d in inside):
            raise ValueError(
                "CollapseAware moves other roles at every step, so no repeat can begin where the one before ended. "
                "For fewer gradients set --defense.adversary.search.steps."
            )
        if any(isinstance(d, (Replay, Growing)) for d in inside):
            raise ValueError(
                "Replay takes each inner step itself, so nothing inside it can repeat or shrink them. Put Growing "
                "around Replay, and Replay there once."
            )

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
        """One repeat; `memory` holds the perturbation, and between repeats their number and the triplets."""
        repeat = int(memory["repeat"]) if "repeat" in memory else 0
        if "triplets" in memory:
            batch = replace(batch, triplets=_same(memory, batch))
        own = {k.removeprefix("inner."): v for k, v in memory.items() if k.startswith("inner.")}
        adversary, whole = self._search
        search = OneStep(whole.step_size, memory.get("perturbation"))
        inner = with_adversary(self.inner, replace(adversary, search=search))
        step = inner(embedder, loss, batch, memory=own, progress=progress, draws=draws, mean=mean)
        again = repeat + 1 < self.repeats
        foreign = {k: v for k, v in memory.items() if k not in _OF_REPLAY and not k.startswith("inner.")}
        kept = foreign | {f"inner.{k}": v for k, v in step.memory.items()}
        if search.found is not None:
            before = memory.get("perturbation", search.found[:0]).to(search.found)
            kept["perturbation"] = torch.cat([search.found, before[len(search.found) :]])
        if again:
            kept["repeat"] = torch.tensor(repeat + 1)
            if step.triplets is not None:
                rows = (step.triplets.anchor, step.triplets.positive, step.triplets.negative)
                kept |= {"triplets": torch.stack(rows), "index": batch.index}
        return replace(step, memory=kept, again=again)

    @property
    def _search(self) -> tuple[Adversary, Pgd]:
        found = adversary_of(self.inner)
        if found is None or not isinstance(found.search, Pgd):
            raise ValueError(
                f"Replay takes single steps of a defense that searches with Pgd; {type(self.inner).__name__} does not. "
                "Use ShiftTraining, AntiCollapse, HardnessManipulation or another defense with an adversary."
            )
        return found, found.search

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What the inner defense remembers."""
        return {f"inner.{name}": value for name, value in first_memory(self.inner, embedder).items()}

    def check(self, loss: Loss) -> None:
        """What the inner defense can train."""
        self.inner.check(loss)


_OF_REPLAY = ("perturbation", "repeat", "triplets", "index")


class OneStep:
    """A search of one step from where an earlier one ended; `found` is the perturbation it ends with."""

    gradients = 1

    def __init__(self, step_size: float, before: Tensor | None) -> None:
        self.step_size, self.before = step_size, before
        self.found: Tensor | None = None

    def __call__(
        self,
        energy: PixelEnergy,
        x: Float[Tensor, "b *k c h w"],
        ball: Ball,
        *,
        achieved: Achieved | None = None,
        coupled: bool = False,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "b *k c h w"]:
        """One gradient; where there was none before it is taken at the centre."""
        begun = x if self.before is None else ball.project(x + _in_places(self.before.to(x), x), x)
        gradient = usable(input_gradient(energy, begun, arange_like(x), 0))
        moved = ball.project(begun - self.step_size * ball.direction(gradient), x)
        self.found = (moved - x).detach()
        return moved


def _in_places(perturbation: Tensor, images: Float[Tensor, "t *k c h w"]) -> Tensor:
    """The perturbation for so many images or tuples: the leading ones, zero where there was none before."""
    missing = images[len(perturbation) :]
    return torch.cat([perturbation[: len(images)], torch.zeros_like(missing)]).detach()


def _same(memory: dict[str, Tensor], batch: Batch) -> Triplets:
    """The triplets of the first repeat.

    Raises:
        ValueError: if this is not the batch of the first repeat.
    """
    if not torch.equal(memory["index"], batch.index):
        raise ValueError("FreeTraining and Replay repeat whole batches and got another one. Set accumulate to 1.")
    return Triplets(*memory["triplets"])
