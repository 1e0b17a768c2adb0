"""Semantics preserving attacks: the query's first results stay in front, so that nobody notices (arXiv:2002.11293)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.candidate import check_draws, mean_distance
from robustdml.attacks.goals.goal import Score, anywhere, at_the_end, in_front, in_head, percentile
from robustdml.attacks.goals.order import check_order, in_order, order_energy, order_score, order_targets
from robustdml.attacks.goals.query import add_hinge_weights, hinge_value
from robustdml.attacks.scene import Scene, rows_of
from robustdml.draws import Draws
from robustdml.types import Achieved, Energy

KAPPA = {"fashion": 4e4, "mnist": 2e4, "cub": 4e4, "cars": 7e4, "sop": 7e4}
"""Published kappa of the dynamic weight, by data set."""
UNKNOWN_KAPPA = 4e4
LARGEST = 1e9
"""Where the dynamic weight is cut off."""


def kappa_of(name: str) -> float:
    """The published kappa of a data set, 4e4 for any other."""
    return next((kappa for part, kappa in KAPPA.items() if part in name.lower()), UNKNOWN_KAPPA)


@runtime_checkable
class Weight(Protocol):
    """How much the preserved items count in an attack's energy."""

    @property
    def coupled(self) -> bool:
        """Whether it depends on the other images of the block."""
        ...

    def __call__(self, lost: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """xi for each row, from the objective [n] of the preserved items; not differentiated."""
        ...


@dataclass(frozen=True)
class FixedWeight:
    """The same xi always; the ECCV 2020 figures were made with 1 for SP-QA+ and 100 for SP-QA-."""

    xi: float = 1.0
    coupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.xi < float("inf"):
            raise ValueError(f"FixedWeight needs a finite xi >= 0, got {self.xi}: below 0 it would drive items away.")

    def __call__(self, lost: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """xi."""
        return torch.full_like(lost, self.xi)


@dataclass(frozen=True)
class DynamicWeight:
    """xi = min(exp(kappa L), 1e9), with L how far the preserved items are from the front (arXiv:2106.03614).

    Args:
        kappa: grows with the size and crowding of the gallery. `None` is the published one of the data set that a
            benchmark runs on, 4e4 for any other and where none is known.
        per: "batch" takes the mean L of the images attacked together, as published, so that they influence each other;
            "image" takes each image's own.
    """

    kappa: float | None = None
    per: Literal["batch", "image"] = "batch"

    @property
    def coupled(self) -> bool:
        """Where the mean over the batch decides."""
        return self.per == "batch"

    def __call__(self, lost: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """xi; an overflow is cut off, NaN becomes 1e7."""
        lost = lost.mean().expand_as(lost) if self.per == "batch" else lost
        kappa = UNKNOWN_KAPPA if self.kappa is None else self.kappa
        return (kappa * lost).exp().clamp_max(LARGEST).nan_to_num(nan=1e7)


@dataclass(frozen=True)
class PreservingQuery:
    """SP-QA+ and SP-QA-: QA on M candidates, plus xi times QA+ on the items that shall stay in front.

    Aims hold the M candidates first, then the preserved items. One product with the gallery serves both.

    Args:
        direction, candidates, unique, objective: as in `Query`; "distance" replaces both terms, while
            xi still follows the hinge of the preserved items.
        weight: xi.
        preserved: how many of the query's nearest others stay, candidates left out. Of a raise attack that follows the
            publication (not `unique`) a candidate may be among them.

    Raises:
        ValueError: for less than one candidate or preserved item.
    """

    direction: Literal["raise", "lower"]
    candidates: int = 1
    unique: bool = False
    weight: Weight = field(default_factory=DynamicWeight)
    preserved: int = 5
    objective: Literal["hinge", "distance"] = "hinge"
    perturbs: ClassVar[str] = "query"

    def __post_init__(self) -> None:
        check_draws("PreservingQuery", self.direction, self.candidates, "usual")
        check_preserved("PreservingQuery", self.preserved)

    @property
    def coupled(self) -> bool:
        """Where the weight is."""
        return self.weight.coupled

    @property
    def from_head(self) -> int:
        """How many of the nearest items its targets need at least; 0 if they are drawn elsewhere."""
        return self.candidates + self.preserved if self.direction == "lower" else 0

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Candidates, then preserved items."""
        head = scene.head(self.candidates + self.preserved)
        if self.direction == "lower":
            targets = head.gather(1, in_head(head, self.candidates, draws, index, scene.size))
        else:
            targets = anywhere(scene, self.candidates, self.unique, draws, index)
        if self.direction == "raise" and not self.unique:
            return torch.cat([targets, head[:, : self.preserved]], dim=1)
        return torch.cat([targets, nearest_but(head, targets, self.preserved)], dim=1)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """Both terms."""
        targets, preserve = aims[:, : self.candidates], aims[:, self.candidates :]
        if self.objective == "distance":
            return self._distances(scene, targets, preserve)

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            def weigh(d: Tensor) -> Tensor:
                weights = preserving_weights(d, rows_of(preserve, unit), self.weight)
                add_hinge_weights(weights, d, rows_of(targets, unit), self.direction)
                return weights

            return scene.system.to_gallery.weighted_sum(z, weigh)

        return energy

    def _distances(self, scene: Scene, targets: Tensor, preserve: Tensor) -> Energy:
        moved, kept = mean_distance(scene, targets, self.direction), mean_distance(scene, preserve, "raise")

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            lost = hinge_value(scene, z.detach(), rows_of(preserve, unit), "raise")
            return moved(z, unit, step) + self.weight(lost) * kept(z, unit, step)

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`prank` of the candidates and `preserved_prank` of the items to be kept, mean percentile ranks."""

        def score(z: Tensor) -> dict[str, Tensor]:
            moved, kept = self._ranks(scene, aims, z)
            return {"prank": moved.mean(dim=1), "preserved_prank": kept.mean(dim=1)}

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Preserved items in front, candidates beside them (raise) or last (lower)."""
        m, n = self.candidates, scene.size
        front = aims.shape[1] - (m if self.direction == "lower" else 0)

        def achieved(z: Tensor, unit: Tensor) -> Tensor:
            moved, kept = self._ranks(scene.of(unit), aims[unit], z)
            there = in_front(moved, n, front) if self.direction == "raise" else at_the_end(moved, n, m)
            return there & in_front(kept, n, front)

        return achieved

    def _ranks(self, scene: Scene, aims: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Percentile ranks of candidates and of preserved items, from one product."""
        d, m, resolution = scene.precise_distances(z), self.candidates, scene.system.resolution
        own = d.gather(1, aims)
        moved = percentile(d, own[:, :m], resolution, self.direction == "lower", counted=1)
        return moved, percentile(d, own[:, m:], resolution, False, counted=1)


@dataclass(frozen=True)
class PreservingOrder:
    """SP-FOA: FOA on M candidates, plus xi times QA+ on the items that shall stay in front.

    Aims hold the M candidates first, in the order they shall come, then the preserved items.

    Args:
        candidates, divisor: as in `Order`; the divisor changes the balance with xi.
        weight: xi.
        preserved: how many of the query's nearest others stay, candidates left out.

    Raises:
        ValueError: for less than two candidates or less than one preserved item.
    """

    candidates: int = 2
    divisor: Literal["as-published", "pairs"] = "as-published"
    weight: Weight = field(default_factory=DynamicWeight)
    preserved: int = 5
    perturbs: ClassVar[str] = "query"

    def __post_init__(self) -> None:
        check_order("PreservingOrder", self.candidates)
        check_preserved("PreservingOrder", self.preserved)

    @property
    def coupled(self) -> bool:
        """Where the weight is."""
        return self.weight.coupled

    @property
    def from_head(self) -> int:
        """How many of the nearest items its targets need at least; 0 if they are drawn elsewhere."""
        return self.candidates + self.preserved

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Candidates, then preserved items."""
        head = scene.head(self.from_head)
        targets = order_targets(head, self.candidates, draws, index, scene.size)
        return torch.cat([targets, nearest_but(head, targets, self.preserved)], dim=1)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """Both terms."""
        order = order_energy(scene, aims[:, : self.candidates], self.divisor)
        preserve = aims[:, self.candidates :]

        def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
            kept = scene.system.to_gallery.weighted_sum(
                z, lambda d: preserving_weights(d, rows_of(preserve, unit), self.weight)
            )
            return order(z, unit, step) + kept

        return energy

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """As `Order`, and `preserved_prank`."""
        targets = aims[:, : self.candidates]

        def score(z: Tensor) -> dict[str, Tensor]:
            return order_score(scene, targets, z) | {"preserved_prank": self._ranks(scene, aims, z).mean(dim=1)}

        return score

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Every pair in the wanted order, and all aims in front."""

        def achieved(z: Tensor, unit: Tensor) -> Tensor:
            ranks = self._ranks(scene.of(unit), aims[unit], z)
            return in_order(scene, aims[unit][:, : self.candidates], z) & in_front(ranks, scene.size, aims.shape[1])

        return achieved

    def _ranks(self, scene: Scene, aims: Tensor, z: Tensor) -> Tensor:
        d = scene.precise_distances(z)
        return percentile(d, d.gather(1, aims[:, self.candidates :]), scene.system.resolution, False, counted=1)


def check_preserved(name: str, preserved: int) -> None:
    """Raise for a preserving attack that preserves nothing."""
    if preserved < 1:
        raise ValueError(f"{name} needs preserved >= 1, got {preserved}. To preserve nothing use the plain attack.")


def nearest_but(head: Int[Tensor, "b k"], taken: Int[Tensor, "b m"], count: int) -> Int[Tensor, "b p"]:
    """The first `count` rows of the head that are not taken; fewer where the head ends.

    Raises:
        ValueError: if nothing is left.
    """
    count = min(count, head.shape[1] - taken.shape[1])
    if count < 1:
        raise ValueError(
            f"{taken.shape[1]} targets leave nothing to preserve among the {head.shape[1]} other items of the gallery. "
            "Use fewer targets or a larger gallery."
        )
    used = (head[:, :, None] == taken[:, None, :]).any(dim=2)
    return head.gather(1, used.int().argsort(dim=1, stable=True)[:, :count])


def preserving_weights(d: Float[Tensor, "b n"], preserve: Int[Tensor, "b p"], weight: Weight) -> Float[Tensor, "b n"]:
    """The weights of xi times QA+ on the preserved items, xi being that of these very distances."""
    weights = torch.zeros_like(d)
    add_hinge_weights(weights, d, preserve, "raise")
    xi = weight(torch.linalg.vecdot(d, weights))
    return weights.mul_(xi[:, None])
