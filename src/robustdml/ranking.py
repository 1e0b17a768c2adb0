"""Ranking a gallery: streamed neighbours and rank counting, never a whole queries x gallery matrix.

Distances that decide an order are computed in float64, and two that differ by less than the distance's resolution are
tied. Ties count against the defender: a wrong item tied with a right one comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance, ToRows

BUDGET = 256 * 2**20
"""Bytes that one block of the queries x gallery matrix may take, with what is derived from it."""


class NotFiniteError(FloatingPointError, ValueError):
    """Embeddings that are NaN or infinite and cannot be ranked."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Embeddings to be ranked, with their classes.

    Raises:
        NotFiniteError: if an embedding is NaN or infinite.
    """

    z: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"]

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.z).all()):
            bad = (~torch.isfinite(self.z).all(dim=1)).nonzero()[:, 0]
            raise NotFiniteError(
                f"{len(bad)} of {len(self.z)} embeddings are NaN or infinite (first at row {int(bad[0])}). "
                "Nothing can be ranked with them; check the weights, or lower the learning rate and train again."
            )


def precise(z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """float64, in which a difference of two float32 embeddings is free of rounding."""
    return z.double()


def distances_to(distance: Distance, z: Float[Tensor, "n d"]) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
    """Distances precise enough to decide an order, to the rows of `z`."""
    to_gallery = distance.against(precise(z))
    return lambda a: to_gallery(precise(a))


def query_blocks(queries: int, gallery: int, copies: int = 4, budget: int = BUDGET) -> Iterator[slice]:
    """Slices of the queries so that `copies` float64 blocks of queries x gallery fit into `budget` bytes."""
    rows = max(1, budget // max(1, copies * 8 * gallery))
    for start in range(0, queries, rows):
        yield slice(start, min(start + rows, queries))


def neighbours(
    distance: Distance,
    queries: Float[Tensor, "q d"],
    gallery: Float[Tensor, "n d"],
    k: int,
    *,
    itself: Int[Tensor, "q"] | None = None,
    budget: int = BUDGET,
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest gallery rows of each query, nearest first, and their distances.

    Args:
        itself: each query's own row in the gallery, which it does not retrieve.

    Raises:
        ValueError: if the gallery has fewer than k other rows.
    """
    others = len(gallery) - (itself is not None)
    if not 1 <= k <= others:
        raise ValueError(f"asked for the {k} nearest of {others} gallery items; k must be 1 … {others}.")
    to_gallery = distances_to(distance, gallery)
    found = []
    for block in query_blocks(len(queries), len(gallery), budget=budget):
        d = to_gallery(queries[block])
        if itself is not None:
            d.scatter_(1, itself[block, None], torch.inf)
        found.append(torch.topk(d, k, dim=1, largest=False))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def sorted_rows(x: Tensor) -> Tensor:
    """Each row in ascending order: values alone, for which numpy's vectorised sort is many times faster on a CPU."""
    if x.device.type != "cpu":
        return x.sort(dim=-1).values
    return torch.from_numpy(np.sort(x.numpy(), axis=-1))


_STRIDE = 64
"""Prefix sums are kept for every so many sorted distances: a 64th of the memory, and the rest is summed when needed."""


@dataclass(frozen=True, eq=False)
class Rankings:
    """Distances from m gallery rows per image to the whole gallery, sorted: counts and prefix sums without a pass."""

    ordered: Float[Tensor, "b m n"]
    sums: Float[Tensor, "b m s"]

    @classmethod
    def of(
        cls, to_gallery: Callable[[Tensor], Tensor], z: Float[Tensor, "n d"], rows: Int[Tensor, "b m"]
    ) -> "Rankings":
        """The rankings that gallery rows see; the product is made in blocks of bounded size."""
        flat, n = rows.flatten(), len(z)
        ordered = torch.empty(len(flat), n, dtype=precise(z[:0]).dtype, device=z.device)
        for block in query_blocks(len(flat), n, copies=2):
            ordered[block] = sorted_rows(to_gallery(z[flat[block]]))
        whole = n // _STRIDE
        sums = ordered[:, : whole * _STRIDE].unflatten(1, (whole, _STRIDE)).sum(dim=2).cumsum(dim=1)
        sums = torch.nn.functional.pad(sums, (1, 0))
        return cls(ordered.unflatten(0, rows.shape), sums.unflatten(0, rows.shape))

    @property
    def size(self) -> int:
        """Number of gallery items."""
        return self.ordered.shape[2]

    @property
    def spread(self) -> Float[Tensor, "b m"]:
        """Farthest minus nearest."""
        return self.ordered[..., -1] - self.ordered[..., 0]

    def before(self, value: Float[Tensor, "k m"], unit: Int[Tensor, "k"], *, ties: bool) -> Int[Tensor, "k m"]:
        """How many items are nearer than `value`, or as near with `ties`, in the rankings of image `unit`.

        A bisection in place: `torch.searchsorted` would copy the rows of repeated units.
        """
        flat, start = self.ordered.flatten(), self._start(unit) * self.size
        low, high = torch.zeros_like(start), torch.full_like(start, self.size)
        compare = torch.le if ties else torch.lt
        for _ in range(self.size.bit_length()):
            middle = (low + high) >> 1
            further = compare(flat[(start + middle).clamp_max_(len(flat) - 1)], value) & (low < high)
            low, high = torch.where(further, middle + 1, low), torch.where(further, high, middle)
        return low

    def sum_of_first(self, count: Int[Tensor, "k m"], unit: Int[Tensor, "k"]) -> Float[Tensor, "k m"]:
        """Sum of the `count` smallest distances in the rankings of image `unit`."""
        row, whole = self._start(unit), count // _STRIDE
        coarse = self.sums.flatten()[row * self.sums.shape[2] + whole]
        place = whole[..., None] * _STRIDE + torch.arange(_STRIDE, device=count.device)
        flat = self.ordered.flatten()
        fine = flat[(row[..., None] * self.size + place).clamp_max_(len(flat) - 1)]
        return coarse + torch.where(place < count[..., None], fine, 0).sum(dim=2)

    def _start(self, unit: Tensor) -> Tensor:
        """Number of each ranking among all."""
        m = self.ordered.shape[1]
        return unit[:, None] * m + torch.arange(m, device=unit.device)


def rank_of(
    d: Float[Tensor, "b n"],
    threshold: Float[Tensor, "b m"],
    *,
    resolution: float,
    ties_before: bool,
) -> Int[Tensor, "b m"]:
    """How many gallery items come before one at distance `threshold`: counted, not sorted.

    Args:
        ties_before: whether items at the same distance (within `resolution`) are counted as coming before.
    """
    edge = threshold + resolution if ties_before else threshold - resolution
    compare = torch.le if ties_before else torch.lt
    return torch.stack([compare(d, e[:, None]).sum(dim=1) for e in edge.unbind(dim=1)], dim=1)


def nearest_is_same_class(
    d: Float[Tensor, "b n"], same: Bool[Tensor, "b n"], resolution: float, k: int = 1
) -> Bool[Tensor, "b"]:
    """Whether one of the first k items is of the query's class: fewer than k others come before the nearest such.

    `d` holds +inf where an item does not count (the query itself).
    """
    nearest_same = d.masked_fill(~same, torch.inf).amin(dim=1, keepdim=True)
    others = d.masked_fill(same, torch.inf)
    if k == 1:
        return nearest_same[:, 0] + resolution < others.amin(dim=1)
    before = rank_of(others, nearest_same, resolution=resolution, ties_before=True)[:, 0]
    return (before < k) & torch.isfinite(nearest_same[:, 0])


def others_before(
    distance: Distance,
    queries: Float[Tensor, "b d"],
    gallery: Float[Tensor, "n d"],
    own: Int[Tensor, "b m"],
    left_out: Int[Tensor, "b l"],
    *,
    to_gallery: ToRows,
    size: float,
    resolution: float,
) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"]]:
    """Distances of the gallery rows `own`, and how many rows that are not `left_out` come before each; ties before.

    One float32 product finds the rows that are nearer for certain. Those too close to call are computed in float64.

    Args:
        left_out: rows that are not counted, `own` among them.
        to_gallery: distances to `gallery` in float32.
        size: no query and no gallery row is longer.
    """
    exact = distance.matrix(precise(queries)[:, None], precise(gallery[own]))[:, 0]
    d = to_gallery(queries.float()).scatter_(1, left_out, torch.inf)
    edge = exact + resolution
    slack = distance.rounding(edge, size)
    certain, perhaps = _Below(d), _Below(d)
    counts = torch.empty_like(own)
    for m in range(own.shape[1]):
        sure = certain.mark((edge - slack)[:, m]).sum(dim=1)
        row, column = perhaps.mark((edge + slack)[:, m], minus=certain).places()
        doubtful = distance.matrix(precise(queries[row])[:, None], precise(gallery[column])[:, None])[:, 0, 0]
        nearer = (doubtful <= edge[row, m]).to(sure.dtype)
        counts[:, m] = sure.index_add_(0, row, nearer).long()
    return exact, counts


class _Below:
    """1 where a distance is at most a threshold, else 0: as numbers, which are counted faster than truth values."""

    RUN = 64
    """Numbers that are looked at together when the few ones are searched."""

    def __init__(self, d: Float[Tensor, "b n"]) -> None:
        self.d = d
        self.flat = d.new_zeros(-(-d.numel() // self.RUN) * self.RUN)
        self.marks = self.flat[: d.numel()].view_as(d)

    def mark(self, threshold: Float[Tensor, "b"], minus: "_Below | None" = None) -> "_Below":
        """Set the marks; those of `minus` are taken away."""
        torch.le(self.d, threshold.to(self.d.dtype)[:, None], out=self.marks)
        if minus is not None:
            self.marks.sub_(minus.marks)
        return self

    def sum(self, dim: int) -> Float[Tensor, "b"]:
        """How many per row, exact up to 2^24."""
        return self.marks.sum(dim=dim)

    def places(self) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
        """Row and column of every mark; quick where there are few."""
        runs = self.flat.view(-1, self.RUN)
        some = runs.sum(dim=1).nonzero()[:, 0]
        run, inside = runs[some].nonzero(as_tuple=True)
        place = some[run] * self.RUN + inside
        return place // self.d.shape[1], place % self.d.shape[1]
