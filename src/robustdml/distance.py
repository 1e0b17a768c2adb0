"""Distances between embeddings. Every class takes raw embeddings and normalises by itself if it needs to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OFFSET = 1e-6
"""Added to every coordinate of a difference by the published pair kernels: it defines the gradient at coincidence."""
_RESOLUTION = 1e-7
"""Relative size of a difference between distances that float32 embeddings cannot mean."""


@runtime_checkable
class Distance(Protocol):
    """How far apart two embeddings are; smaller means more similar."""

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances between the rows of `a` and `b`: exact up to rounding, no offset, gradient 0 at coincidence."""
        ...

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row, with the 1e-6 offset of the published kernels: symmetric to 2e-6 sqrt(d) only.

        `nudge` is added to `b` after normalisation; it gives a distance a direction where a and b coincide.
        """
        ...

    def against(self, b: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """`matrix(., b)` for many calls: what depends on `b` alone is computed once."""
        ...

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Distances to the rows of `b` that differ by less than this count as tied."""
        ...


def _normalise(z: Tensor) -> Tensor:
    return F.normalize(z, dim=-1, eps=1e-12)


def _euclidean(a: Tensor, b: Tensor, a_squared: Tensor | float, b_squared: Tensor | float) -> Tensor:
    tiny = 1e-30  # below it the clamp stops the gradient, which would be infinite at coincidence
    product = a @ b.mT
    return (a_squared + b_squared - 2 * product).clamp_min(tiny).sqrt()


def _squared_norms(z: Tensor) -> Tensor:
    return z.square().sum(dim=-1)


@dataclass(frozen=True)
class Euclidean:
    """||u - v||_2 of raw embeddings, in [0, inf). Metric letter E of RobRank."""

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances, through the Gram matrix."""
        return _euclidean(a, b, _squared_norms(a)[..., :, None], _squared_norms(b)[..., None, :])

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """||a - b + 1e-6||_2 row by row."""
        return (a - (b + nudge) + _OFFSET).square().sum(dim=-1).sqrt()

    def against(self, b: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """`matrix(., b)` with the norms of `b` computed once."""
        b_squared = _squared_norms(b)[None, :]
        return lambda a: _euclidean(a, b, _squared_norms(a)[:, None], b_squared)

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Relative to the mean norm."""
        return _RESOLUTION * float(b.norm(dim=1).mean())


@dataclass(frozen=True)
class Spherical:
    """||u/|u| - v/|v| ||_2, in [0, 2]: Euclidean distance on the unit sphere. Metric letter N of RobRank."""

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances, sqrt(2 - 2 <u, v>)."""
        return _euclidean(_normalise(a), _normalise(b), 1.0, 1.0)

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """||a - b + 1e-6||_2 of the unit vectors, row by row."""
        return Euclidean().pairs(_normalise(a), _normalise(b), nudge)

    def against(self, b: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """`matrix(., b)` with `b` normalised once."""
        unit = _normalise(b)
        return lambda a: _euclidean(_normalise(a), unit, 1.0, 1.0)

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Absolute: the sphere has radius one."""
        return _RESOLUTION


@dataclass(frozen=True)
class Cosine:
    """1 - cos(u, v), in [0, 2]. Metric letter C of RobRank."""

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances."""
        return 1 - _normalise(a) @ _normalise(b).mT

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row; norms are floored at 1e-8. No offset is needed: the gradient vanishes at coincidence."""
        return 1 - F.cosine_similarity(_normalise(a), _normalise(b) + nudge, dim=-1, eps=1e-8)

    def against(self, b: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """`matrix(., b)` with `b` normalised once."""
        unit = _normalise(b)
        return lambda a: 1 - _normalise(a) @ unit.T

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Absolute: the sphere has radius one."""
        return _RESOLUTION


@dataclass(frozen=True)
class Dot:
    """-<u, v>, unbounded: ranking by inner product, e.g. class scores against prototypes."""

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All negative inner products."""
        return -(a @ b.mT)

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row."""
        return -(a * (b + nudge)).sum(dim=-1)

    def against(self, b: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """`matrix(., b)`; nothing depends on `b` alone."""
        return lambda a: self.matrix(a, b)

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Relative to the mean squared norm."""
        return _RESOLUTION * float(_squared_norms(b).mean())


DISTANCES: dict[str, type[Distance]] = {c.__name__: c for c in (Euclidean, Spherical, Cosine, Dot)}
