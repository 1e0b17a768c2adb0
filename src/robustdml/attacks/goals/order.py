"""Order attack: a query wants some candidates ranked in an order of its choice (Order Attack, arXiv:2103.05248)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.goals.goal import Score, in_head
from robustdml.attacks.scene import Scene
from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.ranking import precise
from robustdml.types import Achieved, Energy


@dataclass(frozen=True)
class Order:
    """FOA: (1/M^2) sum_{i<j} [d(e, c_i) - d(e, c_j)]_+, so that c_1 … c_M come in this order.

    The candidates are drawn from the query's nearest 1 %, in random order. Two of them are to swap places:
    [d(e, far) - d(e, near)]_+, undivided, with the published offset inside the distance.

    Args:
        candidates: M.
        divisor: "as-published" is M^2, "pairs" the number of pairs, M (M - 1) / 2: a constant factor.

    Raises:
        ValueError: for less than two candidates.
    """

    candidates: int = 2
    divisor: Literal["as-published", "pairs"] = "as-published"
    coupled: ClassVar[bool] = False
    perturbs: ClassVar[str] = "query"

    def __post_init__(self) -> None:
        check_order("Order", self.candidates)

    @property
    def from_head(self) -> int:
        """How many of the nearest items its targets need at least; 0 if they are drawn elsewhere."""
        return self.candidates

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows in the order they shall come; of two, the nearer comes as first column."""
        return order_targets(scene.head(self.from_head), self.candidates, draws, index, scene.size)

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """The hinge over all pairs."""
        return order_energy(scene, aims, self.divisor)

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """`swapped` of two candidates, 1 or 0; `tau` of more: Kendall's correlation with the wanted order."""
        return lambda z: order_score(scene, aims, z)

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Every pair in the wanted order."""
        return lambda z, unit: in_order(scene, aims[unit], z)


def check_order(name: str, candidates: int) -> None:
    """Raise for an order of nothing."""
    if candidates < 2:
        raise ValueError(f"{name} needs at least two candidates to put in order, got {candidates}.")


def order_targets(
    head: Int[Tensor, "b k"], count: int, draws: Draws, index: Int[Tensor, "b"], size: int
) -> Int[Tensor, "b m"]:
    """`count` different rows of the head, in random order; two of them by distance, nearest first."""
    places = in_head(head, count, draws, index, size)
    return head.gather(1, places.sort(dim=1).values if count == 2 else places)


def signed_distances(
    distance: Distance, z: Float[Tensor, "b d"], candidates: Float[Tensor, "b m d"]
) -> Float[Tensor, "b m"]:
    """What shall ascend: distances to the candidates; of (near, far) the negative ones, with the published offset."""
    if candidates.shape[1] == 2:
        return -distance.pairs(z[:, None].expand_as(candidates), candidates)
    return distance.matrix(z[:, None], candidates)[:, 0]


def order_energy(scene: Scene, aims: Int[Tensor, "b m"], divisor: str) -> Energy:
    """The hinge objective of FOA."""
    candidates, m = scene.gallery.z[aims], aims.shape[1]
    first, second = torch.triu_indices(m, m, 1, device=aims.device)
    by = len(first) if divisor == "pairs" or m == 2 else m * m

    def energy(z: Tensor, unit: Tensor, step: int) -> Tensor:
        d = signed_distances(scene.distance, z, candidates[unit])
        return (d[:, first] - d[:, second]).clamp_min(0).sum(dim=1) / by

    return energy


def pairs_in_order(scene: Scene, aims: Int[Tensor, "b m"], z: Float[Tensor, "b d"]) -> Tensor:
    """Which pairs i < j of candidates stand as wanted; ties do."""
    m = aims.shape[1]
    first, second = torch.triu_indices(m, m, 1, device=aims.device)
    d = signed_distances(scene.distance, precise(z), precise(scene.gallery.z[aims]))
    return d[:, first] <= d[:, second] + scene.system.resolution


def order_score(scene: Scene, aims: Int[Tensor, "b m"], z: Float[Tensor, "b d"]) -> dict[str, Tensor]:
    """What an order attack reports."""
    share = pairs_in_order(scene, aims, z).to(z.dtype).mean(dim=1)
    return {"swapped": share} if aims.shape[1] == 2 else {"tau": 2 * share - 1}


def in_order(scene: Scene, aims: Int[Tensor, "b m"], z: Float[Tensor, "b d"]) -> Tensor:
    """Whether every pair stands as wanted."""
    return pairs_in_order(scene, aims, z).all(dim=1)
