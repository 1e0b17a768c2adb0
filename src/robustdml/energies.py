"""Pure functions of embeddings that adversaries minimise and defenses train on."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.draws import Draws
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


def triplet_collapse(distance: Distance) -> Energy:
    """d(p, n) + d(a, p) + d(a, n) of stacked triplets [t 3 d]: pulls all three members together."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        a, p, n = z.unbind(dim=1)
        return distance.pairs(p, n) + distance.pairs(a, p) + distance.pairs(a, n)

    return energy


def collapse_or_split(distance: Distance, collapses: Bool[Tensor, "b"]) -> Energy:
    """d(u, v) of stacked pairs [t 2 d] where `collapses`, -d(u, v) elsewhere."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        d = distance.pairs(z[:, 0], z[:, 1])
        return torch.where(collapses[unit], d, -d)

    return energy


def hardening(distance: Distance, stop: float | None = None) -> Energy:
    """-H of stacked triplets [t 3 d]: makes triplets hard (Madry et al., arXiv:1706.06083, on triplets).

    With `stop`, max(-H, stop): a triplet moves until H reaches -`stop` and stays where it is beyond; at equality it
    still moves.
    """

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        ease = -hardness(distance, z[:, 0], z[:, 1], z[:, 2])
        return ease if stop is None else ease.clamp_min(stop)

    return energy


Objective = Literal["ET", "L2", "KL"]
"""How hardness H and its destination D are compared: min(0, H - D)^2, (H - D)^2, -q s with both L1-normalised."""


Members = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(z [n k d] of the roles that move, unit [n]) -> anchors, positives and negatives, the others as they were."""


def members(clean: Float[Tensor, "b 3 d"], roles: list[int]) -> Members:
    """Triplets of which the `roles` (0 anchor, 1 positive, 2 negative) move and the others are constants."""

    def of(z: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, p, n = (z[:, roles.index(role)] if role in roles else clean[unit, role] for role in range(3))
        return a, p, n

    return of


def _shared(value: Float[Tensor, ""], rows: int) -> Float[Tensor, "n"]:
    """A number of the whole batch as the sum of one part for each row."""
    return (value / rows).expand(rows)


_ROUNDING = 1e-6
"""Hardness that counts as none."""


def manipulation(
    distance: Distance, destination: Float[Tensor, "b"], objective: Objective, triplets: Members
) -> Energy:
    """How far the hardness of triplets is from a destination (RobDML, arXiv:2203.01439, equation 2).

    ET leaves triplets alone that are as hard as they shall be, L2 makes harder ones easier. KL is the gradient form of
    the published divergence, whose value is NaN wherever a destination is negative; its triplets influence each other.
    """

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        h, wanted = hardness(distance, *triplets(z, unit)), destination[unit]
        if objective == "KL":
            return -F.normalize(wanted, p=1, dim=0) * F.normalize(h, p=1, dim=0)
        gap = h - wanted
        if objective == "ET":  # source and destination may be one triplet: rounding is no reason to move it
            gap = torch.where(gap < -_ROUNDING, gap, 0.0)
        return gap.square()

    return energy


def raised_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Energy:
    """Minus a loss (z, unit) -> number of all rows together, which influence each other."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return _shared(-loss(z, unit), len(z))

    return energy


def collapseness(positive: Float[Tensor, "t"], negative: Float[Tensor, "t"], sharpness: float) -> Float[Tensor, ""]:
    """C of CA-TRIDE (arXiv:2312.07364): weighted distances to positives minus those to negatives.

    The weights are the softmax of sharpness * d over the batch; above 0 it is collapsed.
    """
    return (_weighted(positive, sharpness) - _weighted(negative, sharpness)).sum()


def _weighted(d: Float[Tensor, "t"], sharpness: float) -> Float[Tensor, "t"]:
    return (sharpness * d).softmax(dim=0) * d


def closer_half(d: Float[Tensor, "t"]) -> Float[Tensor, ""]:
    """The mean of the smaller half of some distances."""
    return d.topk(max(1, len(d) // 2), largest=False).values.mean()


def until_collapse(distance: Distance, triplets: Members, sharpness: float) -> Energy:
    """max(0, -C): pulls a batch of triplets together until it is collapsed, and not further (CAP of CA-TRIDE)."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        a, p, n = triplets(z, unit)
        c = collapseness(distance.pairs(a, p), distance.pairs(a, n), sharpness)
        return _shared((-c).clamp_min(0), len(z))

    return energy


def anchor_flight(distance: Distance, triplets: Members, sharpness: float, clean: Float[Tensor, "b 3 d"]) -> Energy:
    """max(0, C) + exp(-max(0, -C)) max(0, closer half of d(a, n) - mean d(a~, a)) (ANP of CA-TRIDE).

    Anchors move away from where they were, as far as the nearer negatives are, while the batch is not collapsed.
    """
    reach = closer_half(distance.pairs(clean[:, 0], clean[:, 2]))

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        a, p, n = triplets(z, unit)
        c = collapseness(distance.pairs(a, p), distance.pairs(a, n), sharpness)
        lacking = (reach - distance.pairs(a, clean[unit, 0]).mean()).clamp_min(0)
        return _shared(c.clamp_min(0) + (-(-c).clamp_min(0)).exp() * lacking, len(z))

    return energy


def anchored_hardening(distance: Distance, anchor: Float[Tensor, "b d"]) -> Energy:
    """-H of pairs (p, n) [t 2 d] with the embeddings of the anchors held constant."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return -hardness(distance, anchor[unit], z[:, 0], z[:, 1])

    return energy


def collapse_or_hardening(distance: Distance, draws: Draws) -> Energy:
    """d(p, n) or -H of stacked triplets [t 3 d]: at every step one coin for all units decides (u > 1/2: collapse)."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        coin = float(draws.uniform("inner step", torch.tensor([step], device=z.device), (), torch.float64))
        a, p, n = z.unbind(dim=1)
        return distance.pairs(p, n) if coin > 0.5 else -hardness(distance, a, p, n)

    return energy


def shift(distance: Distance, reference: Float[Tensor, "b d"], start: Callable[[Tensor], Tensor]) -> Energy:
    """-d(e, e_0): moves each embedding away from `reference`.

    At step 0 the reference is nudged by `start(unit)` [n d], since the gradient vanishes at e = e_0 (cosine distance).
    """

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return -distance.pairs(z, reference[unit], start(unit) if step == 0 else 0.0)

    return energy


def squared_shift(target: Float[Tensor, "b d"], start: Callable[[Tensor], Tensor]) -> Energy:
    """-||e - target||^2 of raw embeddings (FARE, arXiv:2402.12336), nudged as `shift` is at step 0."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        nudge = start(unit) if step == 0 else 0.0
        return -((z - target[unit]) - nudge).square().sum(dim=-1)  # in this order a nudge of 1e-7 is not rounded away

    return energy


def cross_entropy(prototypes: Float[Tensor, "k d"], labels: Int[Tensor, "b"]) -> Energy:
    """ln p_y, p the softmax of <z, prototype>: minus the cross-entropy, so that the own class loses its score."""

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        return -F.cross_entropy(z @ prototypes.T, labels[unit], reduction="none")

    return energy
