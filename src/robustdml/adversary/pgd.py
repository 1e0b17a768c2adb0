"""Projected gradient descent on the energy (Madry et al., arXiv:1706.06083)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.balls import Ball
from robustdml.draws import Draws
from robustdml.types import Achieved, PixelEnergy, arange_like


def input_gradient(energy: PixelEnergy, x: Tensor, unit: Tensor, step: int) -> Tensor:
    """Gradient of the summed energy: rows do not influence each other, so the sum keeps every row's own gradient."""
    return value_and_gradient(energy, x, unit, step)[1]


def value_and_gradient(energy: PixelEnergy, x: Tensor, unit: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Energies of the rows, and the gradient of their sum.

    Raises:
        ValueError: if the energy does not depend on the images as far as torch can tell.
    """
    x = x.detach().requires_grad_()
    values = energy(x, unit, step)
    if not values.requires_grad:
        raise ValueError(
            "the embedding has no gradient with respect to the image, so no gradient attack can be made. Remove "
            "detach(), no_grad() and numpy from the model, or attack without gradients: --search nes"
        )
    (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


def usable(gradient: Tensor) -> Tensor:
    """NaN becomes 0: an image must not turn into NaN and pass for a broken model; `audit` counts such gradients."""
    return gradient.nan_to_num(nan=0.0)


def eccv_schedule(eps: float) -> "Pgd":
    """The search that the ECCV 2020 code (arXiv:2002.11293) derives from an l-infinity radius alone.

    step_size = min(max(eps / 10, 1/255), 0.01) and steps = min(max(10, 2 eps / step_size), 30), cut to a whole number;
    a single step of eps where eps <= 1/255.
    """
    if eps <= 1 / 255:
        return Pgd(1, eps)
    step_size = min(max(eps / 10, 1 / 255), 0.01)
    return Pgd(int(min(max(10, 2 * eps / step_size), 30)), step_size)


@dataclass(frozen=True)
class Pgd:
    """x <- project(x - step_size * direction(gradient)), `steps` times; the last iterate is the result.

    Args:
        steps: number of gradients. A single step uses the whole radius as its size (FGSM), as published.
        step_size: in units of the ball's norm.
        random_start: begin at a uniform point of the ball instead of its centre.
        saturation: stop after a step before which the mean energy had changed by less than this since the step
            before, the first compared with -1 (RobDML: 1e-7). For energies that end in a plateau, where further steps
            move nothing: a row without a gradient has arrived, and costs no more. It looks at all rows together, so
            they depend on their batch. `None`: never.
        universal: average the gradient over the block before its direction is taken, so that all images move alike up
            to the edge of the box; a random start is then shared too. Results depend on who is in the block.
    """

    steps: int
    step_size: float
    random_start: bool = False
    saturation: float | None = None
    universal: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Pgd needs steps >= 1, got {self.steps}. For no attack at all use eps = 0.")
        if not 0 <= self.step_size < float("inf"):
            raise ValueError(f"Pgd needs a finite step_size >= 0, got {self.step_size}.")
        if self.saturation is not None and not self.saturation > 0:
            raise ValueError(f"Pgd needs saturation > 0, or None to take all steps, got {self.saturation}.")

    @property
    def gradients(self) -> int:
        """One per step."""
        return self.steps

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
        """The last iterate."""
        centre, unit = x, arange_like(x)
        size = ball.eps if self.steps == 1 else self.step_size
        if self.random_start:
            x = ball.sample(centre, draws=draws, index=index[:1].expand(len(x)) if self.universal else index)
        if self.saturation is not None:
            return self._until_saturated(self.saturation, energy, x, centre, ball, size, coupled or self.universal)
        for step in range(self.steps):
            x = self._moved(x, centre, input_gradient(energy, x, unit, step), ball, size)
        return x

    def _moved(self, x: Tensor, centre: Tensor, gradient: Tensor, ball: Ball, size: float) -> Tensor:
        gradient = usable(gradient)
        if self.universal:
            gradient = gradient.mean(dim=0, keepdim=True)
        return ball.project(x - size * ball.direction(gradient), centre)

    def _until_saturated(
        self, least: float, energy: PixelEnergy, x: Tensor, centre: Tensor, ball: Ball, size: float, coupled: bool
    ) -> Tensor:
        """A row on its plateau stays there, so it is left out of the steps that follow."""
        x, moving, before = x.clone(), arange_like(x), -1.0
        values = x.new_zeros(len(x))
        for step in range(self.steps):
            value, gradient = value_and_gradient(energy, x[moving], moving, step)
            values[moving] = value.to(values)
            x[moving] = self._moved(x[moving], centre[moving], gradient, ball, size)
            now = float(values.mean())
            if not coupled:
                moving = moving[usable(gradient).flatten(1).any(dim=1)]
            if not len(moving) or abs(now - before) < least:
                break
            before = now
        return x
