"""Pure functions of embeddings that adversaries minimise and defenses train on."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.types import Energy


def hardness(
    distance: Distance, a: Float[Tensor, "*k d"], p: Float[Tensor, "*k d"], n: Float[Tensor, "*k d"]
) -> Float[Tensor, "*k"]:
    """H(a, p, n) = d(a, p) - d(a, n): above 0 a triplet is ranked wrongly."""
    return distance.pairs(a, p) - distance.pairs(a, n)


def collapse(distance: Distance) -> Energy:
    """d(p, n) of stacked pairs [t 2 d]: pulls both members onto each other (ACT, arXiv:2106.03614)."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return distance.pairs(z[:, 0], z[:, 1])

    return energy


def shift(distance: Distance, reference: Float[Tensor, "b d"], start: Callable[[Tensor], Tensor]) -> Energy:
    """-d(e, e_0): moves each embedding away from `reference`.

    At step 0 the reference is nudged by `start(unit)` [n d], since the gradient vanishes at e = e_0 (cosine distance).
    """

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return -distance.pairs(z, reference[unit], start(unit) if step == 0 else 0.0)

    return energy


def cross_entropy(prototypes: Float[Tensor, "k d"], labels: Int[Tensor, "b"]) -> Energy:
    """ln p_y, p the softmax of <z, prototype>: minus the cross-entropy, so that the own class loses its score."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return -F.cross_entropy(z @ prototypes.T, labels[unit], reduction="none")

    return energy
