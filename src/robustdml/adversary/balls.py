"""Balls of admissible perturbations around images, intersected with the box [0, 1] of pixels."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.draws import Draws


@runtime_checkable
class Ball(Protocol):
    """What an adversary may do to one image; norms are taken over the last three dimensions."""

    @property
    def eps(self) -> float:
        """Radius, as a fraction of the pixel range."""
        ...

    def project(self, x: Float[Tensor, "*n c h w"], centre: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """The nearest admissible point: ball first, then box."""
        ...

    def direction(self, gradient: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Steepest ascent of unit size in this norm; zero where the gradient is zero."""
        ...

    def clip(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Into the ball around zero, without a box."""
        ...

    def norm(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n"]:
        """Size of each displacement in this norm."""
        ...

    def sample(self, centre: Float[Tensor, "n *k c h w"], *, draws: Draws, index: Int[Tensor, "n"]) -> Tensor:
        """Uniform in the ball, then clipped to the box."""
        ...


def check_radius(eps: float) -> None:
    """Raise for a radius that is not a non-negative number."""
    if not 0 <= eps < float("inf"):
        raise ValueError(
            f"eps must be a finite number >= 0 (a fraction of the [0, 1] pixel range, e.g. 8/255), got {eps}."
        )


@dataclass(frozen=True)
class Linf:
    """max |delta| <= eps, a fraction of the pixel range."""

    eps: float

    def __post_init__(self) -> None:
        check_radius(self.eps)
        if self.eps > 1:
            raise ValueError(
                f"eps of linf is a fraction of the pixel range [0, 1], got {self.eps}. Write {self.eps:g}/255 if you "
                "mean levels of an 8-bit image, or 1 for no bound but the box."
            )

    def project(self, x: Float[Tensor, "*n c h w"], centre: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Coordinate-wise clip."""
        return torch.minimum(torch.maximum(x, centre - self.eps), centre + self.eps).clamp(0, 1)

    def direction(self, gradient: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """The sign, with sign(0) = 0."""
        return gradient.sign()

    def clip(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Coordinate-wise clip."""
        return displacement.clamp(-self.eps, self.eps)

    def norm(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n"]:
        """Largest absolute entry."""
        return displacement.abs().amax(dim=(-3, -2, -1))

    def sample(self, centre: Float[Tensor, "n *k c h w"], *, draws: Draws, index: Int[Tensor, "n"]) -> Tensor:
        """centre + 2 eps (1/2 - u), u uniform per pixel."""
        u = draws.uniform("start", index, tuple(centre.shape[1:]), centre.dtype)
        return (centre + 2 * self.eps * (0.5 - u)).clamp(0, 1)


@dataclass(frozen=True)
class L2:
    """||delta||_2 <= eps, over all pixels and channels of one image."""

    eps: float

    def __post_init__(self) -> None:
        check_radius(self.eps)

    def project(self, x: Float[Tensor, "*n c h w"], centre: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Scale the displacement into the ball, then clip to the box, which only shortens it."""
        return (centre + self.clip(x - centre)).clamp(0, 1)

    def direction(self, gradient: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """gradient / ||gradient||, scaled first so that no magnitude under- or overflows."""
        largest = gradient.abs().amax(dim=(-3, -2, -1), keepdim=True)
        scaled = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))
        norm = scaled.square().sum(dim=(-3, -2, -1), keepdim=True).sqrt()
        return scaled / torch.where(norm > 0, norm, torch.ones_like(norm))

    def clip(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Scale down where longer than eps."""
        norm = self.norm(displacement)[..., None, None, None]
        return displacement * torch.where(norm > self.eps, self.eps / norm, torch.ones_like(norm))

    def norm(self, displacement: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n"]:
        """Euclidean length."""
        return displacement.square().sum(dim=(-3, -2, -1)).sqrt()

    def sample(self, centre: Float[Tensor, "n *k c h w"], *, draws: Draws, index: Int[Tensor, "n"]) -> Tensor:
        """A uniform direction with radius eps u^(1/dimension)."""
        shape = tuple(centre.shape[1:])
        direction = self.direction(draws.normal("start", index, shape, centre.dtype))
        u = draws.uniform("start radius", index, (*shape[:-3], 1, 1, 1), centre.dtype)
        dimension = shape[-3] * shape[-2] * shape[-1]
        return (centre + self.eps * u ** (1 / dimension) * direction).clamp(0, 1)


BALLS: dict[str, type[Ball]] = {"Linf": Linf, "L2": L2}
