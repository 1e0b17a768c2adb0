"""The adversary: moves images inside a ball so that an energy of their embeddings falls."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.balls import Ball
from robustdml.draws import Draws
from robustdml.models.embedder import Embedder, frozen, in_float32
from robustdml.types import Achieved, Energy, PixelEnergy


@runtime_checkable
class Search(Protocol):
    """How an adversary looks for the minimum. Gradient searches differentiate the energy, others only evaluate it."""

    @property
    def gradients(self) -> int:
        """Gradients to the input that it takes per image: what its cost is compared with."""
        ...

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
        """Perturbed images inside the ball around `x`, one unit per row of the first dimension."""
        ...


@runtime_checkable
class Querying(Protocol):
    """A search that asks for energies without their gradient, and says how often."""

    @property
    def forwards(self) -> int:
        """Forward passes per image without a gradient."""
        ...


def forwards_of(search: Search) -> int:
    """Forward passes per image without a gradient; none for searches that follow gradients alone."""
    return search.forwards if isinstance(search, Querying) else 0


def embed_tuples(embedder: Embedder, x: Float[Tensor, "b *k c h w"]) -> Float[Tensor, "b *k d"]:
    """Embed images that come in tuples, in one forward pass."""
    return embedder(x.flatten(0, -4)).unflatten(0, x.shape[:-3])


@dataclass(frozen=True)
class Adversary:
    """A ball and a search: the only place where pixels, model and gradient meet."""

    ball: Ball
    search: Search

    def __post_init__(self) -> None:
        stands = getattr(self.search, "step_size", None) == 0 and getattr(self.search, "steps", 0) > 1
        if stands and self.ball.eps > 0:
            raise ValueError(
                "a search with steps of size 0 moves nothing, and every model looks robust to it. Give a step size "
                f"> 0, e.g. {2.5 * self.ball.eps / self.search.steps:.3g}, or eps = 0 for no attack."  # type: ignore[attr-defined]
            )

    def __call__(
        self,
        embedder: Embedder,
        x: Float[Tensor, "b *k c h w"],
        energy: Energy,
        *,
        achieved: Achieved | None = None,
        coupled: bool = False,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "b *k c h w"]:
        """The perturbed images, detached. The embedder runs in evaluation mode and is left as it was found."""

        def of_pixels(pixels: Tensor, unit: Tensor, step: int) -> Tensor:
            return energy(embed_tuples(embedder, pixels), unit, step)

        goal = achieved and _of_images(achieved, in_float32(embedder))
        with frozen(embedder), torch.enable_grad():
            found = self.search(
                of_pixels, x.detach(), self.ball, achieved=goal, coupled=coupled, draws=draws, index=index
            )
        return found.detach()


def _of_images(achieved: Achieved, embedder: Embedder) -> Achieved:
    """The goal as it will be scored: on embeddings in float32."""

    def reached(pixels: Tensor, unit: Tensor) -> Tensor:
        with torch.no_grad():
            return achieved(embed_tuples(embedder, pixels), unit)

    return reached
