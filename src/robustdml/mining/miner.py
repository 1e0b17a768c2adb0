"""What a miner is, and the masks and draws of which miners of pairs are made.

In an SPC-2 batch rows 2t and 2t + 1 are a same-class pair; the even rows are the anchors. Every miner states the
weights with which it draws; `one_each` turns them into triplets. Masks never depend on NaN: distances are clamped at 0.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.types import Triplets


@runtime_checkable
class Miner(Protocol):
    """Chooses one triplet per anchor. `index` [b] are data set indices, the counters of the draws."""

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Triplets of batch rows; no gradient."""
        ...


def anchors_of(labels: Int[Tensor, "b"]) -> Int[Tensor, "t"]:
    """The even rows of an SPC-2 batch."""
    return torch.arange(0, len(labels), 2, device=labels.device)


def need_pairs(what: object, labels: Int[Tensor, "b"]) -> None:
    """Raise unless rows 2t and 2t + 1 of a batch are of one class, as in an SPC-2 batch.

    Raises:
        ValueError: naming what needs them, and how to get them.
    """
    if len(labels) % 2 or not torch.equal(labels[::2], labels[1::2]):
        raise ValueError(
            f"{type(what).__name__} needs batches of pairs, rows 2t and 2t + 1 of one class; these {len(labels)} rows "
            "are not. Use --batches Spc2, or a loss that takes any batch such as MultiSimilarity."
        )


def same_class(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor the rows of its class, itself included."""
    return labels[anchors_of(labels)][:, None] == labels[None, :]


def partner(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor its pair partner alone."""
    rows = torch.arange(len(labels), device=labels.device)
    return rows[None, :] == anchors_of(labels)[:, None] + 1


def other_class(labels: Int[Tensor, "b"]) -> Bool[Tensor, "t b"]:
    """For each anchor the rows of other classes; any row of the batch if there are none."""
    return fall_back(~same_class(labels), torch.ones_like(same_class(labels)))


def fall_back(mask: Bool[Tensor, "t b"], instead: Bool[Tensor, "t b"]) -> Bool[Tensor, "t b"]:
    """Rows of `mask` without a true entry are replaced by those of `instead`."""
    return torch.where(mask.any(dim=1, keepdim=True), mask, instead)


def anchor_distances(z: Float[Tensor, "b d"], distance: Distance) -> Float[Tensor, "t b"]:
    """Distances from the anchors to all rows, without gradient."""
    with torch.no_grad():
        return distance.matrix(z[::2], z)


def signed_square(d: Float[Tensor, "t b"]) -> Float[Tensor, "t b"]:
    """d |d|, which orders as d does: published miners compare squares, and distances of `Dot` may be negative."""
    return d * d.abs()


def draw_one(
    purpose: str, weights: Float[Tensor, "t b"] | Bool[Tensor, "t b"], draws: Draws, index: Int[Tensor, "t"]
) -> Int[Tensor, "t"]:
    """One column per row, with probability proportional to `weights`."""
    if weights.dtype == torch.bool:
        return draws.one_of(purpose, index, weights)
    cumulated = weights.double().cumsum(dim=1)
    level = draws.uniform(purpose, index, (1,), torch.float64) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, level, right=True)[:, 0].clamp_max(weights.shape[1] - 1)


def one_each(positives: Tensor, negatives: Tensor, labels: Tensor, draws: Draws, index: Tensor) -> Triplets:
    """One triplet per anchor, drawn by weights or masks [t b]."""
    anchors = anchors_of(labels)
    counter = index[anchors]
    return Triplets(
        anchors,
        draw_one("positive", positives, draws, counter),
        draw_one("negative", negatives, draws, counter),
    )
