"""Distances between embeddings. Every class takes raw embeddings and normalises by itself if it needs to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_OFFSET = 1e-6
"""Added to every coordinate of a difference by the published pair kernels: it defines the gradient at coincidence."""
_PRODUCT_ERROR = 2e-6
"""Error of a float32 product of two unit vectors, with a wide margin (3e-7 is the largest seen for 512 numbers)."""
_RESOLUTION = 1e-7
"""Relative size of a difference between distances that float32 embeddings cannot mean."""


@runtime_checkable
class Distance(Protocol):
    """How far apart two embeddings are; smaller means more similar."""

    @property
    def largest(self) -> float | None:
        """The largest value it can take, `None` if it has no bound."""
        ...

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        """Raw embeddings as this distance sees them: on the unit sphere if it normalises, else as they are."""
        ...

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

    def against(self, b: Float[Tensor, "n d"]) -> "ToRows":
        """`matrix(., b)` for many calls: what depends on `b` alone is computed once."""
        ...

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Distances to the rows of `b` that differ by less than this count as tied."""
        ...

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """How far a distance computed in float32 may lie from `d`; no embedding is longer than `size`."""
        ...


def _normalise(z: Tensor) -> Tensor:
    return F.normalize(z, dim=-1, eps=1e-12)


def _squared_norms(z: Tensor) -> Tensor:
    return z.square().sum(dim=-1)


PIECE = 1024
"""Rows that are gone through together where no gradient is asked for: 1 MiB for 256 embeddings."""
_TINY = 1e-30
"""Squared distances are floored here; the floor stops the gradient, which would be infinite at coincidence."""


def _euclidean(a: Tensor, b: Tensor, a_squared: Tensor | float, b_squared: Tensor | float) -> Tensor:
    return (a_squared + b_squared - 2 * (a @ b.mT)).clamp_min(_TINY).sqrt()


Weigh = Callable[[Float[Tensor, "m n"]], Float[Tensor, "m n"]]
"""Distances -> a new tensor of the weights with which they are summed; it sees constants and may overwrite nothing."""


@runtime_checkable
class ToRows(Protocol):
    """Distances to fixed rows b, for attacks that ask at every step."""

    def __call__(self, a: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        """`matrix(a, b)`."""
        ...

    def weighted_sum(self, a: Float[Tensor, "m d"], weigh: Weigh) -> Float[Tensor, "m"]:
        """sum_n w_n d(a, b_n) with w = weigh(d) held constant: two products, nothing else of size m x n kept."""
        ...

    def pieces(self, a: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "m p"]]]:
        """`matrix(a, b)` some rows b at a time, without gradients: what is done to such a piece stays in the cache."""
        ...


class _EuclideanSum(torch.autograd.Function):
    """sum_n w_n ||u - x_n|| and its gradient sum_n w_n (u - x_n) / ||u - x_n||, computed in one go."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, rows: Tensor, rows_squared: Tensor, weigh: Weigh) -> Tensor:
        squared = torch.addmm(rows_squared, u, rows.T, alpha=-2).add_(_squared_norms(u)[:, None])
        d = squared.clamp_min_(_TINY).sqrt_()
        weights = weigh(d)
        value = torch.linalg.vecdot(d, weights)
        pull = weights.div_(torch.threshold_(d, _TINY**0.5, torch.inf))  # nothing pulls where u and x_n coincide
        ctx.save_for_backward(pull.sum(dim=1, keepdim=True) * u - pull @ rows)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None, None


@dataclass(frozen=True, eq=False)
class _ToEuclideanRows:
    """Euclidean distances after `place` (the identity, or normalisation)."""

    place: Callable[[Tensor], Tensor]
    rows: Float[Tensor, "n d"]
    squared: Float[Tensor, "1 n"]

    def __call__(self, a: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        u = self.place(a)
        if u.requires_grad and torch.is_grad_enabled():
            return _euclidean(u, self.rows, _squared_norms(u)[:, None], self.squared)
        squared = torch.addmm(self.squared, u, self.rows.T, alpha=-2).add_(_squared_norms(u)[:, None])
        return squared.clamp_min_(_TINY).sqrt_()

    def weighted_sum(self, a: Float[Tensor, "m d"], weigh: Weigh) -> Float[Tensor, "m"]:
        u = self.place(a)
        if u.requires_grad and torch.is_grad_enabled():
            return _EuclideanSum.apply(u, self.rows, self.squared, weigh)
        d = self(a)
        return torch.linalg.vecdot(d, weigh(d))

    def pieces(self, a: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "m p"]]]:
        u = self.place(a.detach())
        own = _squared_norms(u)[:, None]
        for part in _parts(self.rows):
            squared = torch.addmm(self.squared[:, part], u, self.rows[part].T, alpha=-2).add_(own)
            yield part, squared.clamp_min_(_TINY).sqrt_()


@dataclass(frozen=True, eq=False)
class _ToProductRows:
    """offset - <u, x_n> after `place`."""

    place: Callable[[Tensor], Tensor]
    rows: Float[Tensor, "n d"]
    offset: float

    def __call__(self, a: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        return self.offset - self.place(a) @ self.rows.T

    def weighted_sum(self, a: Float[Tensor, "m d"], weigh: Weigh) -> Float[Tensor, "m"]:
        u = self.place(a)
        if not (u.requires_grad and torch.is_grad_enabled()):
            d = self.offset - u @ self.rows.T
            return torch.linalg.vecdot(d, weigh(d))
        with torch.no_grad():
            weights = weigh(self.offset - u @ self.rows.T)
            total, pulled = self.offset * weights.sum(dim=1), weights @ self.rows
        return total - (u * pulled).sum(dim=1)

    def pieces(self, a: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "m p"]]]:
        u = self.place(a.detach())
        for part in _parts(self.rows):
            yield part, self.offset - u @ self.rows[part].T


def _parts(rows: Tensor) -> list[slice]:
    return [slice(i, min(i + PIECE, len(rows))) for i in range(0, len(rows), PIECE)]


def _as_is(z: Tensor) -> Tensor:
    return z


@dataclass(frozen=True)
class Euclidean:
    """||u - v||_2 of raw embeddings, in [0, inf). Metric letter E of RobRank."""

    largest: ClassVar[float | None] = None

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        """As they are."""
        return z

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances, through the Gram matrix."""
        return _euclidean(a, b, _squared_norms(a)[..., :, None], _squared_norms(b)[..., None, :])

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """||a - b + 1e-6||_2 row by row."""
        return (a - (b + nudge) + _OFFSET).square().sum(dim=-1).sqrt()

    def against(self, b: Float[Tensor, "n d"]) -> ToRows:
        """`matrix(., b)` with the norms of `b` computed once."""
        return _ToEuclideanRows(_as_is, b, _squared_norms(b)[None, :])

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Relative to the mean norm."""
        return _RESOLUTION * float(b.norm(dim=1).mean())

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """That of the squared distance, through the root."""
        return (d.square() + 4 * _PRODUCT_ERROR * size**2).sqrt() - d


@dataclass(frozen=True)
class Spherical:
    """||u/|u| - v/|v| ||_2, in [0, 2]: Euclidean distance on the unit sphere. Metric letter N of RobRank."""

    largest: ClassVar[float | None] = 2.0

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        """z / |z|."""
        return _normalise(z)

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances, sqrt(2 - 2 <u, v>)."""
        return _euclidean(_normalise(a), _normalise(b), 1.0, 1.0)

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """||a - b + 1e-6||_2 of the unit vectors, row by row."""
        return Euclidean().pairs(_normalise(a), _normalise(b), nudge)

    def against(self, b: Float[Tensor, "n d"]) -> ToRows:
        """`matrix(., b)` with `b` normalised once."""
        unit = _normalise(b)
        return _ToEuclideanRows(_normalise, unit, _squared_norms(unit)[None, :])

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Absolute: the sphere has radius one."""
        return _RESOLUTION

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """That of unit vectors, whatever their size was."""
        return Euclidean().rounding(d, 1.0)


@dataclass(frozen=True)
class Cosine:
    """1 - cos(u, v), in [0, 2]. Metric letter C of RobRank."""

    largest: ClassVar[float | None] = 2.0

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        """z / |z|."""
        return _normalise(z)

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All distances."""
        return 1 - _normalise(a) @ _normalise(b).mT

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row; norms are floored at 1e-8. No offset is needed: the gradient vanishes at coincidence."""
        return 1 - F.cosine_similarity(_normalise(a), _normalise(b) + nudge, dim=-1, eps=1e-8)

    def against(self, b: Float[Tensor, "n d"]) -> ToRows:
        """`matrix(., b)` with `b` normalised once."""
        return _ToProductRows(_normalise, _normalise(b), 1.0)

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Absolute: the sphere has radius one."""
        return _RESOLUTION

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """That of the product of unit vectors."""
        return torch.full_like(d, _PRODUCT_ERROR)


@dataclass(frozen=True)
class Dot:
    """-<u, v>, unbounded: ranking by inner product, e.g. class scores against prototypes."""

    largest: ClassVar[float | None] = None

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k d"]:
        """As they are."""
        return z

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All negative inner products."""
        return -(a @ b.mT)

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row."""
        return -(a * (b + nudge)).sum(dim=-1)

    def against(self, b: Float[Tensor, "n d"]) -> ToRows:
        """`matrix(., b)`; nothing depends on `b` alone."""
        return _ToProductRows(_as_is, b, 0.0)

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """Relative to the mean squared norm."""
        return _RESOLUTION * float(_squared_norms(b).mean())

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """That of the product."""
        return torch.full_like(d, _PRODUCT_ERROR * size**2)


@dataclass(frozen=True, eq=False)
class _ToLeadingRows:
    """`ToRows` of the inner distance on the first coordinates."""

    width: int
    inner: ToRows

    def __call__(self, a: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        return self.inner(a[:, : self.width])

    def weighted_sum(self, a: Float[Tensor, "m d"], weigh: Weigh) -> Float[Tensor, "m"]:
        return self.inner.weighted_sum(a[:, : self.width], weigh)

    def pieces(self, a: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Float[Tensor, "m p"]]]:
        return self.inner.pieces(a[:, : self.width])


@dataclass(frozen=True)
class Leading:
    """A distance of the first coordinates, for embeddings that pack what another head says behind them.

    Args:
        width: how many coordinates count.
    """

    width: int = 512
    inner: Distance = field(default_factory=Spherical)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"Leading needs width >= 1, got {self.width}.")

    @property
    def largest(self) -> float | None:
        """That of the inner distance."""
        return self.inner.largest

    def place(self, z: Float[Tensor, "*k d"]) -> Float[Tensor, "*k w"]:
        """The first coordinates, as the inner distance sees them."""
        return self.inner.place(z[..., : self.width])

    def matrix(self, a: Float[Tensor, "*k m d"], b: Float[Tensor, "*k n d"]) -> Float[Tensor, "*k m n"]:
        """All inner distances."""
        return self.inner.matrix(a[..., : self.width], b[..., : self.width])

    def pairs(
        self, a: Float[Tensor, "*k d"], b: Float[Tensor, "*k d"], nudge: Float[Tensor, "*#k d"] | float = 0.0
    ) -> Float[Tensor, "*k"]:
        """Row by row."""
        small = nudge[..., : self.width] if isinstance(nudge, Tensor) else nudge
        return self.inner.pairs(a[..., : self.width], b[..., : self.width], small)

    def against(self, b: Float[Tensor, "n d"]) -> ToRows:
        """`matrix(., b)`."""
        return _ToLeadingRows(self.width, self.inner.against(b[:, : self.width]))

    def resolution(self, b: Float[Tensor, "n d"]) -> float:
        """That of the inner distance."""
        return self.inner.resolution(b[:, : self.width])

    def rounding(self, d: Float[Tensor, "*m"], size: float) -> Float[Tensor, "*m"]:
        """That of the inner distance; the coordinates that count are no longer than all of them."""
        return self.inner.rounding(d, size)


DISTANCES: dict[str, type[Distance]] = {c.__name__: c for c in (Euclidean, Spherical, Cosine, Dot, Leading)}
