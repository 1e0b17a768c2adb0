"""No search at all: a random point of the ball."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.balls import Ball
from robustdml.draws import Draws
from robustdml.types import Achieved, PixelEnergy


@dataclass(frozen=True)
class Noise:
    """Uniform noise in the ball: the weakest baseline, and the corruption that restoration trains on."""

    gradients: ClassVar[int] = 0

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
        """One draw per image; the energy is not looked at."""
        return ball.sample(x, draws=draws, index=index)
