"""Batch composition: which images a process sees at each step of an epoch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.draws import Draws


@dataclass(frozen=True)
class Spc2:
    """Pairs of one class, two samples per class: rows 2t and 2t + 1 of a batch are an image and its partner.

    Every training image is the first of exactly one pair per epoch. Its partner is uniform over all training images of
    its class; a class with a single image pairs it with itself. Classes are neither balanced nor kept apart: sampling
    is uniform over images.

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

    def epoch(
        self, labels: Int[Tensor, "n"], train: Int[Tensor, "t"], *, draws: Draws, rank: int = 0, world: int = 1
    ) -> list[Int[Tensor, "r"]]:
        """The data set indices of this process, one tensor of at most 2 * `pairs` rows per step.

        Order and partners depend on `draws`, the labels and the set of training images alone: neither on the batch
        size nor on the number of processes nor on the order of `train`. At each step the processes hold contiguous
        slices of one global batch of `pairs` * `world` pairs, and all take the same number of steps. The last batch is
        kept even if incomplete; its pairs are spread over the processes as evenly as possible, so one may hold a pair
        less than another, or none at all (a tensor of length 0) when fewer pairs than processes are left.

        Args:
            labels: class of every image of the data set.
            train: data set indices to draw from, without repetition.
            draws: a stream of this epoch, e.g. `draws.under("epoch", epoch)`.
            rank: this process, in 0 … `world` - 1.
            world: number of processes.

        Raises:
            ValueError: if there is no process `rank` among `world`.
        """
        if not 0 <= rank < world:
            raise ValueError(f"Spc2.epoch got rank={rank} of world={world}; expected 0 <= rank < world.")
        pairs = _pairs(labels, train, draws, itself=self.partner == "any")
        return [
            step[len(step) * rank // world : len(step) * (rank + 1) // world].reshape(-1)
            for step in pairs.split(self.pairs * world)
        ]


def _pairs(labels: Int[Tensor, "n"], train: Int[Tensor, "t"], draws: Draws, *, itself: bool) -> Int[Tensor, "t 2"]:
    """Each training image with its partner, shuffled."""
    first = train.sort().values
    _, group, count = torch.unique(labels[first], return_inverse=True, return_counts=True)
    by_class = first[group.argsort(stable=True)]
    start = count.cumsum(0) - count  # where each class begins in by_class
    if itself:
        place = draws.integers("partner", first, count[group])
    else:
        own = group.argsort(stable=True).argsort() - start[group]  # where each image stands in its class
        skipped = 1 + draws.integers("partner", first, (count[group] - 1).clamp_min(1))
        place = (own + skipped) % count[group]
    second = by_class[start[group] + place]
    order = draws.bits("order", first).argsort(stable=True)
    return torch.stack([first, second], dim=1)[order]


def slots(rows: Int[Tensor, "r"], rows_per_item: int) -> Int[Tensor, "r"]:
    """A number for each row of a batch that no other row of the epoch has, whatever batch or process it is in.

    Every image is the first of one item per epoch, so an item is known by it; its rows follow one another. The random
    views of a pair thus differ even where an image is its own partner.
    """
    first = rows[::rows_per_item, None]
    return (rows_per_item * first + torch.arange(rows_per_item)).flatten()


def pairwise_parts(rows: Int[Tensor, "r"], parts: int) -> list[Tensor]:
    """Rows cut into at most `parts` pieces that keep pairs together."""
    if len(rows) == 0:
        return []
    return [pairs.reshape(-1) for pairs in rows.reshape(-1, 2).tensor_split(parts) if len(pairs)]
