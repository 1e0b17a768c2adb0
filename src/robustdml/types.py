"""Shape-annotated records that pass between the layers of the library."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Energy = Callable[[Tensor, Tensor, int], Tensor]
"""(z [n *k d], unit [n], step) -> one number per row [n], minimised. Row i belongs to attacked unit `unit[i]`."""
PixelEnergy = Callable[[Tensor, Tensor, int], Tensor]
"""The same as a function of images [n *k c h w]; built by `Adversary` alone."""
Achieved = Callable[[Tensor, Tensor], Bool[Tensor, "n"]]
"""(z [n d], unit [n]) -> whether the goal of that unit is reached. A search gets the same as a function of images."""


@dataclass(frozen=True)
class Triplets:
    """Rows of a batch playing anchor, positive and negative."""

    anchor: Int[Tensor, "t"]
    positive: Int[Tensor, "t"]
    negative: Int[Tensor, "t"]

    def of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows of `x` in each role, three tensors [t ...]."""
        return x[self.anchor], x[self.positive], x[self.negative]


@dataclass(frozen=True)
class Batch:
    """One training batch. `index` are data set indices; `triplets` is set only when the data fixes them (2AFC)."""

    images: Float[Tensor, "b c h w"]
    labels: Int[Tensor, "b"]
    index: Int[Tensor, "b"]
    triplets: Triplets | None = None


@dataclass(frozen=True)
class Step:
    """What a defense hands to the training loop.

    `memory` is the only state a defense may carry to its next step (it is checkpointed); of a batch that is cut into
    parts, every part begins with that of the step before, and numbers that differ afterwards are averaged. `again` asks
    for another step on the same batch. `after_backward` sees the gradients before they are cleared and returns the new
    memory. `z` are the raw embeddings that the loss saw, with their graph:
    rows of the batch [b d], or triplets [t 3 d] with the labels of their anchors; penalties and diagnoses read them.
    `triplets` are the rows that were trained as such.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, float] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    again: bool = False
    after_backward: Callable[[], dict[str, Tensor]] | None = None
    z: Float[Tensor, "b *k d"] | None = None
    labels: Tensor | None = None
    triplets: Triplets | None = None


@dataclass(frozen=True)
class RunReference:
    """Weights of a finished run: a run folder, a checkpoint folder or a weight file. Loaded by `runs.py` alone."""

    path: str


def arange_like(x: Tensor) -> Int[Tensor, "n"]:
    """0, 1, …, len(x) - 1 on the device of `x`."""
    return torch.arange(len(x), device=x.device)
