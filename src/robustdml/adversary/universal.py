"""One perturbation for all images of a block (ECCV 2020, arXiv:2002.11293)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.balls import Ball
from robustdml.adversary.pgd import input_gradient, usable
from robustdml.draws import Draws
from robustdml.types import Achieved, PixelEnergy, arange_like


@dataclass(frozen=True)
class Universal:
    """One displacement, found on every other image of the block and applied to all of them.

    After each step it is clipped to ball and box image by image, and the clipped displacements are averaged; what is
    returned is clipped once more for each image, so that it is universal up to the edge of the box.

    Args:
        steps: number of gradients.
        step_size: in units of the ball's norm.
    """

    steps: int = 100
    step_size: float = 2 / 255

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Universal needs steps >= 1, got {self.steps}. For no attack at all use eps = 0.")
        if not 0 <= self.step_size < float("inf"):
            raise ValueError(f"Universal needs a finite step_size >= 0, got {self.step_size}.")

    @property
    def gradients(self) -> int:
        """One per step, for half of the images."""
        return (self.steps + 1) // 2

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
        """The images, all moved alike."""
        seen, unit = x[::2], arange_like(x)[::2]
        displacement = torch.zeros_like(x[:1])
        for step in range(self.steps):
            gradient = usable(input_gradient(energy, seen + displacement, unit, step)).mean(dim=0, keepdim=True)
            moved = seen + displacement - self.step_size * ball.direction(gradient)
            displacement = (ball.project(moved, seen) - seen).mean(dim=0, keepdim=True)
        return ball.project(x + displacement, x)
