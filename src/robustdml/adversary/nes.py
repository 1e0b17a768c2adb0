"""Natural evolution strategies: a search that sees energies only (Ilyas et al., arXiv:1804.08598)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.balls import Ball
from robustdml.draws import Draws
from robustdml.types import Achieved, PixelEnergy, arange_like

ROWS = 256
"""Images of one forward pass: several attacked images times their populations, or part of one population."""
FINE_SIDE, COARSE_SIDE = 64, 32
"""Images wider than the first get noise of the second size, enlarged without interpolation, as published."""


@dataclass(frozen=True)
class Nes:
    """Black-box search: x <- project(x - step_size * direction(g)) with g = sum_i l_i p_i / (P sigma).

    p are `population` clipped Gaussian displacements in antithetic pairs, l_i the energies of the population's images
    inside the ball. One iteration before the `steps` ones scores a population and moves nothing, as published: it
    costs (steps + 1) * population forward passes per image. The last iterate is the result.

    Args:
        steps: iterations that move the image.
        population: P, an even number.
        sigma: standard deviation of the displacements before they are clipped to the ball; 2 eps if not given.
        step_size: in units of the ball's norm.

    Raises:
        ValueError: for a population that is not made of pairs, or a setting without meaning.

    Note:
        Where attacked images influence each other (`coupled`) every call holds each of them once, since their energies
        are means over the call; otherwise a call holds the populations of some of them. The published implementation
        cannot run such goals at all.
    """

    steps: int = 32
    population: int = 100
    sigma: float | None = None
    step_size: float = 3 / 255
    gradients: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(
                f"Nes needs steps >= 2, got {self.steps}: one moves the image by {self.step_size:.3g} at most, which "
                "measures nothing. The published number is 32."
            )
        if self.population < 2 or self.population % 2:
            raise ValueError(
                f"Nes needs an even population of at least 2, got {self.population}: its members come in pairs z and "
                "-z, whose difference is what the search goes by. 100 is the published one."
            )
        if self.sigma is not None and not 0 < self.sigma < float("inf"):
            raise ValueError(f"Nes needs a finite sigma > 0, or None for 2 eps, got {self.sigma}.")
        if not 0 <= self.step_size < float("inf"):
            raise ValueError(f"Nes needs a finite step_size >= 0, got {self.step_size}.")

    @property
    def forwards(self) -> int:
        """One per member of the population and iteration, the one that only scores included."""
        return (self.steps + 1) * self.population

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
        centre = x
        estimate = self._coupled_gradient if coupled else self._gradient
        with torch.no_grad():
            for step in range(self.steps + 1):
                gradient = estimate(energy, x, centre, ball, step, draws, index)
                if step > 0:
                    x = ball.project(x - self.step_size * ball.direction(gradient), centre)
        return x

    def _gradient(
        self, energy: PixelEnergy, x: Tensor, centre: Tensor, ball: Ball, step: int, draws: Draws, index: Tensor
    ) -> Tensor:
        """The estimate up to a positive factor, some images at a time."""
        found = torch.empty_like(x)
        for some in arange_like(x).split(max(1, ROWS // self.population)):
            noise = self._noise(x[some], ball, f"population {step}", self.population // 2, draws, index[some])
            difference = self._values(energy, x[some], centre[some], ball, noise, some, step)
            found[some] = torch.einsum("bp,bp...->b...", difference, noise)
        return found

    def _values(
        self, energy: PixelEnergy, x: Tensor, centre: Tensor, ball: Ball, noise: Tensor, unit: Tensor, step: int
    ) -> Float[Tensor, "b p"]:
        """l(x + p) - l(x - p) for each pair, in calls of at most `ROWS` images."""
        both = torch.cat([noise, -noise], dim=1)
        images = ball.project(x[:, None] + both, centre[:, None].expand_as(both)).flatten(0, 1)
        units = unit.repeat_interleave(both.shape[1])
        values = [energy(part, own, step) for part, own in zip(images.split(ROWS), units.split(ROWS), strict=True)]
        plus, minus = torch.cat(values).view(len(x), -1).chunk(2, dim=1)
        return usable_difference(plus, minus)

    def _coupled_gradient(
        self, energy: PixelEnergy, x: Tensor, centre: Tensor, ball: Ball, step: int, draws: Draws, index: Tensor
    ) -> Tensor:
        """The same with every image once in each call."""
        found, unit = torch.zeros_like(x), arange_like(x)
        for pair in range(self.population // 2):  # all noise at once would be half the population times the block
            displacement = self._noise(x, ball, f"population {step} {pair}", 1, draws, index)[:, 0]
            plus, minus = (energy(ball.project(x + sign * displacement, centre), unit, step) for sign in (1.0, -1.0))
            found += usable_difference(plus, minus).view(-1, *[1] * (x.ndim - 1)) * displacement
        return found

    def _noise(
        self, x: Tensor, ball: Ball, purpose: str, pairs: int, draws: Draws, index: Int[Tensor, "b"]
    ) -> Float[Tensor, "b p *k c h w"]:
        """The first member of each pair: Gaussian, clipped to the ball."""
        shape, (height, width) = tuple(x.shape[1:]), x.shape[-2:]
        sigma = 2 * ball.eps if self.sigma is None else self.sigma
        if width <= FINE_SIDE:
            z = draws.normal(purpose, index, (pairs, *shape), x.dtype)
        else:
            coarse = (pairs, *shape[:-2], COARSE_SIDE, COARSE_SIDE)
            z = draws.normal(purpose, index, coarse, x.dtype)
            row, column = (torch.arange(side, device=x.device) * COARSE_SIDE // side for side in (height, width))
            z = z[..., row[:, None], column]
        return ball.clip(sigma * z)


def usable_difference(plus: Tensor, minus: Tensor) -> Tensor:
    """NaN and infinite energies say nothing about a direction and count as no difference."""
    return (plus - minus).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
