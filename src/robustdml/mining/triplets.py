"""Random triplets of any batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.types import Triplets, arange_like


@dataclass(frozen=True)
class RandomTriplet:
    """For batches without pairs: as many random (a, p, n) as rows, a != p of one class and n of another.

    Without replacement while there are enough. If no class has two rows, each row is its own positive; if there is one
    class alone, any other row plays the negative.
    """

    def roles(self, labels: Int[Tensor, "b"]) -> tuple[Bool[Tensor, "b b"], Bool[Tensor, "b b"]]:
        """For each row the admissible positives and negatives."""
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = same & ~itself
        if len(labels) == 1:
            return itself, itself
        return positive if bool(positive.any()) else itself, ~itself if bool(same.all()) else ~same

    def population(self, labels: Int[Tensor, "b"]) -> Int[Tensor, "m 3"]:
        """All admissible triplets, in the order in which they are numbered."""
        positive, negative = self.roles(labels)
        count = int((positive.sum(dim=1) * negative.sum(dim=1)).sum())
        return _numbered(positive, negative, torch.arange(count, device=labels.device))

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch; the population is numbered, never listed."""
        positive, negative = self.roles(labels)
        rows, wanted = arange_like(labels), len(labels)
        if bool(positive.diagonal().all()):
            return Triplets(rows, rows, draws.one_of("triplet", index, negative))
        count = int((positive.sum(dim=1) * negative.sum(dim=1)).sum())
        counter = index[:1]
        if count < wanted:
            numbers = draws.integers("triplet", counter, count, (wanted,))[0]
        elif count <= 4 * wanted:
            numbers = draws.permutation("triplet", counter, count)[0, :wanted]
        else:  # the first distinct ones of a long enough sequence are a draw without replacement
            numbers = _first_distinct(draws.integers("triplet", counter, count, (3 * wanted,))[0], wanted)
        return Triplets(*_numbered(positive, negative, numbers).unbind(dim=1))


def _numbered(
    positive: Bool[Tensor, "b b"], negative: Bool[Tensor, "b b"], number: Int[Tensor, "m"]
) -> Int[Tensor, "m 3"]:
    """The admissible triplets of these numbers, counted anchor by anchor and positive by positive."""
    negatives = negative.sum(dim=1)
    counts = positive.sum(dim=1) * negatives
    ends = counts.cumsum(dim=0)
    anchor = torch.searchsorted(ends, number, right=True)
    place = number - (ends - counts)[anchor]
    of_positive, of_negative = place // negatives[anchor], place % negatives[anchor]
    return torch.stack([anchor, _nth(positive[anchor], of_positive), _nth(negative[anchor], of_negative)], dim=1)


def _nth(mask: Bool[Tensor, "m b"], n: Int[Tensor, "m"]) -> Int[Tensor, "m"]:
    """The column of the n-th true entry of each row, counted from 0."""
    return (mask.cumsum(dim=1) == n[:, None] + 1).int().argmax(dim=1)


def _first_distinct(numbers: Int[Tensor, "m"], wanted: int) -> Int[Tensor, "k"]:
    """The first `wanted` values without their repetitions."""
    order = numbers.argsort(stable=True)
    repeated = torch.zeros_like(numbers, dtype=torch.bool)
    repeated[order[1:]] = numbers[order[1:]] == numbers[order[:-1]]
    return numbers[~repeated][:wanted]
