"""Miners of pytorch-metric-learning."""

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from robustdml import pml
from robustdml.distance import Distance
from robustdml.draws import Draws, own_generators
from robustdml.mining.triplets import RandomTriplet
from robustdml.types import Triplets


@dataclass(frozen=True)
class PmlMiner:
    """A miner of pytorch-metric-learning by its name, for batches of any composition; on the command line pml:NAME.

    It finds any number of triplets, or of pairs, which become all triplets that share their anchor. Where it finds
    none, `RandomTriplet` takes its place. Needs the extra `pml`.

    Args:
        name: of the class, e.g. "TripletMarginMiner".
        arguments: keywords of its constructor.
        sampled: whether as many triplets as rows are drawn, with replacement, from those it found (RobRank).
    """

    name: str = "TripletMarginMiner"
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    sampled: bool = False

    def tuples(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> tuple[Tensor, ...]:
        """As their losses want them: (a, p, n), or pairs (a, p) and (b, n) in four tensors; perhaps empty.

        Raises:
            ImportError: if pytorch-metric-learning is not installed.
            ValueError: for an unknown name, argument or distance.
        """
        miner = _made(self.name, json.dumps(self.arguments, sort_keys=True), distance)  # type: ignore[arg-type]  # frozen
        with own_generators(draws.number("miner")):
            found: tuple[Tensor, ...] = miner(z.detach(), labels)
        if not self.sampled or pml.empty(found):
            return found
        anchor, positive, negative = _as_triplets(found, labels)
        taken = draws.integers("triplet", index[:1], len(anchor), (len(labels),))[0]
        return anchor[taken], positive[taken], negative[taken]

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        found = _as_triplets(self.tuples(z, labels, distance, draws=draws, index=index), labels)
        if pml.empty(found):
            return RandomTriplet()(z, labels, distance, draws=draws, index=index)
        return Triplets(*found)


@cache
def _made(name: str, arguments: str, distance: Distance) -> nn.Module:
    return pml.made("miners", name, json.loads(arguments), distance)


def _as_triplets(found: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
    """Pairs (a, p), (b, n) as all triplets with a = b; triplets as they are."""
    if len(found) == 3:
        return found
    anchor, positive, other, negative = found
    first, second = torch.nonzero(anchor[:, None] == other[None, :], as_tuple=True)
    return anchor[first], positive[first], negative[second]


def pml_miner(name: str) -> PmlMiner:
    """The miner called pml:NAME.

    Raises:
        ImportError: if pytorch-metric-learning is not installed.
        ValueError: for an unknown name, with near ones, or a miner that cannot be used.
    """
    pml.class_of("miners", name)
    return PmlMiner(name)
