"""Batch composition: which images a process sees at each step of an epoch.

A batch is made of items: an image, a pair, or a triplet. Every training image is the first of exactly one item per
epoch. Order and company depend on the draws, the labels and the set of training images alone: neither on the batch size
nor on the number of processes nor on the order in which the training images are named. At each step the processes hold
contiguous slices of one global batch, and all take the same number of steps. The last batch is kept even if
incomplete; its items are spread over the processes as evenly as possible, so one may hold an item less than another, or
none at all (a tensor of length 0) when fewer items than processes are left.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.draws import Draws
from robustdml.types import Triplets


@runtime_checkable
class Batches(Protocol):
    """How the batches of an epoch are composed."""

    @property
    def rows_per_item(self) -> int:
        """Rows that stay together, however a batch is cut."""
        ...

    @property
    def items(self) -> int:
        """Items per process and step."""
        ...

    def epoch(
        self, labels: Int[Tensor, "n"], train: Int[Tensor, "t"], *, draws: Draws, rank: int = 0, world: int = 1
    ) -> list[Int[Tensor, "r"]]:
        """The data set indices of this process, one tensor of at most `items` * `rows_per_item` rows per step."""
        ...

    def triplets(self, rows: Int[Tensor, "r"]) -> Triplets | None:
        """The triplets that such rows form, `None` where a miner is to find them."""
        ...


@dataclass(frozen=True)
class Spc2:
    """Pairs of one class, two samples per class: rows 2t and 2t + 1 of a batch are an image and its partner.

    The partner of an image is uniform over all training images of its class; a class with a single image pairs it with
    itself. Classes are neither balanced nor kept apart: sampling is uniform over images.

    Note: the published implementation lets an image be its own partner, with probability one over the size of its class
    (`partner="any"`, the default). The order of an epoch is the same for both.

    Args:
        pairs: pairs per process and step, at least 1; a batch has twice as many rows.
        partner: "any" image of the class, or "another" one.
    """

    pairs: int = 128
    partner: Literal["any", "another"] = "any"
    rows_per_item: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ValueError(f"Spc2 needs at least one pair per batch, got pairs={self.pairs}.")

    @property
    def items(self) -> int:
        """Pairs per process and step."""
        return self.pairs

    def epoch(
        self, labels: Int[Tensor, "n"], train: Int[Tensor, "t"], *, draws: Draws, rank: int = 0, world: int = 1
    ) -> list[Int[Tensor, "r"]]:
        """The data set indices of this process, one tensor of at most 2 * `pairs` rows per step.

        Args:
            labels: class of every image of the data set.
            train: data set indices to draw from, without repetition.
            draws: a stream of this epoch, e.g. `draws.under("epoch", epoch)`.
            rank: this process, in 0 … `world` - 1.
            world: number of processes.

        Raises:
            ValueError: if there is no process `rank` among `world`.
        """
        first = train.sort().values
        partners = _partners(labels, first, draws, itself=self.partner == "any")
        return _steps(torch.stack([first, partners], dim=1), self.items, draws, rank, world)

    def triplets(self, rows: Int[Tensor, "r"]) -> Triplets | None:
        """None: a miner finds them."""
        return None


@dataclass(frozen=True)
class ClassBatches:
    """Single images in random order: any row may be anchor, and classes meet by chance.

    For losses that take any batch, or triplets of `RandomTriplet`; miners of pairs refuse it. Where the last batch
    would leave a process with fewer than two images, of which there are no batch statistics, it shares with the one
    before.

    Args:
        images: per process and step, at least 2.
    """

    images: int = 128
    rows_per_item: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ValueError(f"ClassBatches needs at least two images per batch, got images={self.images}.")

    @property
    def items(self) -> int:
        """Images per process and step."""
        return self.images

    def epoch(
        self, labels: Int[Tensor, "n"], train: Int[Tensor, "t"], *, draws: Draws, rank: int = 0, world: int = 1
    ) -> list[Int[Tensor, "r"]]:
        """The data set indices of this process, at most `images` per step; the labels play no part."""
        return _steps(train.sort().values[:, None], self.items, draws, rank, world)

    def triplets(self, rows: Int[Tensor, "r"]) -> Triplets | None:
        """None: a miner finds them."""
        return None


@dataclass(frozen=True)
class TripletBatches:
    """Ready triplets: rows 3t, 3t + 1 and 3t + 2 are an image, one of its class and one of another.

    The positive is uniform over all training images of the class, the anchor included. The negative is uniform over the
    other classes, then over the images of that class. No miner is asked.

    Note: for Stanford Online Products RobRank draws the negative from the whole split, its own class included, and
    labels rows by image; here a negative is always of another class.

    Args:
        count: triplets per process and step, at least 1; a batch has three times as many rows.
    """

    count: int = 128
    rows_per_item: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"TripletBatches needs at least one triplet per batch, got count={self.count}.")

    @property
    def items(self) -> int:
        """Triplets per process and step."""
        return self.count

    def epoch(
        self, labels: Int[Tensor, "n"], train: Int[Tensor, "t"], *, draws: Draws, rank: int = 0, world: int = 1
    ) -> list[Int[Tensor, "r"]]:
        """The data set indices of this process, at most 3 * `count` per step.

        Raises:
            ValueError: if there is no process `rank` among `world`, or all training images are of one class.
        """
        first = train.sort().values
        _, group, count = torch.unique(labels[first], return_inverse=True, return_counts=True)
        if len(count) == 1:
            raise ValueError(
                f"TripletBatches found no negatives: all {len(first)} training images are of class "
                f"{int(labels[first[0]])}. Use data with two classes at least."
            )
        by_class = first[group.argsort(stable=True)]
        start = count.cumsum(0) - count
        other = draws.integers("other class", first, len(count) - 1) if len(first) else group
        other = other + (other >= group)
        negative = by_class[start[other] + draws.integers("negative", first, count[other])]
        items = torch.stack([first, _partners(labels, first, draws), negative], dim=1)
        return _steps(items, self.items, draws, rank, world)

    def triplets(self, rows: Int[Tensor, "r"]) -> Triplets | None:
        """Rows by threes."""
        anchor = torch.arange(0, len(rows), 3, device=rows.device)
        return Triplets(anchor, anchor + 1, anchor + 2)


def _partners(
    labels: Int[Tensor, "n"], first: Int[Tensor, "t"], draws: Draws, *, itself: bool = True
) -> Int[Tensor, "t"]:
    """For each image one of its class; not itself if that is not wanted and the class has another."""
    _, group, count = torch.unique(labels[first], return_inverse=True, return_counts=True)
    by_class = first[group.argsort(stable=True)]
    start = count.cumsum(0) - count  # where each class begins in by_class
    if itself:
        place = draws.integers("partner", first, count[group])
    else:
        own = group.argsort(stable=True).argsort() - start[group]  # where each image stands in its class
        skipped = 1 + draws.integers("partner", first, (count[group] - 1).clamp_min(1))
        place = (own + skipped) % count[group]
    return by_class[start[group] + place]


def _steps(items: Int[Tensor, "t k"], size: int, draws: Draws, rank: int, world: int) -> list[Int[Tensor, "r"]]:
    """The share of one process in shuffled items, step by step."""
    if not 0 <= rank < world:
        raise ValueError(f"a batch composition got rank={rank} of world={world}; expected 0 <= rank < world.")
    order = draws.bits("order", items[:, 0]).argsort(stable=True)
    steps = list(items[order].split(size * world))
    if items.shape[1] == 1 and len(steps) > 1 and len(steps[-1]) < 2 * world:  # a lone image has no batch statistics
        steps[-2:] = torch.cat(steps[-2:]).tensor_split(2)
    return [step.tensor_split(world)[rank].reshape(-1) for step in steps]


def slots(rows: Int[Tensor, "r"], rows_per_item: int) -> Int[Tensor, "r"]:
    """A number for each row of a batch that no other row of the epoch has, whatever batch or process it is in.

    Every image is the first of one item per epoch, so an item is known by it; its rows follow one another. The random
    views of a pair thus differ even where an image is its own partner.
    """
    first = rows[::rows_per_item, None]
    return (rows_per_item * first + torch.arange(rows_per_item)).flatten()


def whole_parts(rows: Int[Tensor, "r"], rows_per_item: int, parts: int) -> list[Tensor]:
    """Rows cut into at most `parts` pieces that keep items together, as a batch is cut for processes."""
    if len(rows) == 0:
        return []
    return [items.reshape(-1) for items in rows.reshape(-1, rows_per_item).tensor_split(parts) if len(items)]
