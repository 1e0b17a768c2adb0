"""What an attacker wants."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.attacks.scene import Scene
from robustdml.draws import Draws
from robustdml.ranking import rank_of
from robustdml.types import Achieved, Energy

Score = Callable[[Float[Tensor, "b d"]], dict[str, Tensor]]
"""Embeddings of the attacked images -> named numbers, one per image."""
LOCAL = (0.01, 0.05)
"""Shares of the clean ranking between which "local" targets are drawn."""
VISUAL = 0.0003
"""Share of the clean ranking from whose head "visual" targets are drawn."""


@runtime_checkable
class Goal(Protocol):
    """Aims chosen once, on clean data; an energy that falls as they are reached; and what is reported."""

    @property
    def coupled(self) -> bool:
        """Whether attacked images influence each other: then they must be attacked in fixed blocks."""
        ...

    @property
    def perturbs(self) -> str:
        """Who is attacked: "query" or "candidate"."""
        ...

    def choose(self, scene: Scene, *, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
        """Gallery rows aimed at; m = 0 for goals without targets. `index` are the counters of the draws."""
        ...

    def energy(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Energy:
        """Built once per batch: closes over what is constant. Its rows are units in any order and as often as asked."""
        ...

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """Built once per batch and called before and after the attack. Ties count for the attacker."""
        ...

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Whether the attacker has got all there is to get, row by row; units as for the energy."""
        ...


def no_targets(scene: Scene) -> Int[Tensor, "b 0"]:
    """The aims of a goal without targets."""
    return torch.empty(len(scene.clean), 0, dtype=torch.long, device=scene.clean.device)


def anywhere(scene: Scene, count: int, unique: bool, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
    """`count` gallery rows drawn uniformly; with repetitions and the own row possible unless `unique`.

    Raises:
        ValueError: if the gallery is too small.
    """
    others = scene.size - (unique and scene.itself is not None)
    if count > others:
        kind = "different targets" if unique else "targets"
        raise ValueError(
            f"{count} {kind} cannot be drawn from {others}{' other' * unique} gallery items. Use fewer targets"
            f"{', a larger gallery or unique=False.' if unique and count <= scene.size else ' or a larger gallery.'}"
        )
    if not unique:
        return draws.integers("target", index, scene.size, (count,))
    if scene.itself is None:
        return draws.permutation("target", index, scene.size)[:, :count]
    rows = draws.permutation("target", index, scene.size - 1)[:, :count]
    return rows + (rows >= scene.itself[:, None])


def in_head(
    head: Int[Tensor, "b k"], count: int, draws: Draws, index: Int[Tensor, "b"], size: int, repeat: bool = False
) -> Int[Tensor, "b m"]:
    """`count` random places of the head of a ranking, with or without repetitions.

    Raises:
        ValueError: if the head is too short.
    """
    length = head.shape[1]
    if count > length:
        raise ValueError(
            f"{count} targets cannot be drawn from the {length} nearest of a gallery of {size} items. Use fewer "
            "targets or a larger gallery."
        )
    if repeat:
        return draws.integers("target", index, length, (count,))
    return draws.permutation("target", index, length)[:, :count]


def nearby(scene: Scene, count: int, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
    """`count` rows of the clean ranking between 1 % and 5 % of the gallery, with repetitions ("local" sampling).

    Raises:
        ValueError: if the gallery is too small to have such rows.
    """
    low, high = (int(share * scene.size) for share in LOCAL)
    head = scene.head(high)
    if not low < head.shape[1] or not low < high or count > scene.size:
        raise ValueError(
            f"local targets lie between 1 % and 5 % of the ranking, and a gallery of {scene.size} items has no room "
            f"for {count} there. Use a larger gallery, or targets from the whole gallery."
        )
    return head.gather(1, low + draws.integers("target", index, high - low, (count,)))


def most_visible(scene: Scene, count: int) -> Int[Tensor, "b k"]:
    """The first 0.03 % of the clean ranking, at least `count` rows ("visual" sampling, for pictures)."""
    length = max(int(VISUAL * scene.size), count)
    return scene.head(length)[:, :length]


def percentile(
    d: Float[Tensor, "b n"],
    threshold: Float[Tensor, "b m"],
    resolution: float,
    ties_before: bool,
    counted: int | Int[Tensor, "b 1"],
) -> Float[Tensor, "b m"]:
    """Percentile rank in [0, 1] of an item at distance `threshold`.

    Args:
        ties_before: items tied with it come before it; a ranking in which all items are tied then puts it last.
        counted: how many of the entries of `d` are the item itself, which does not come before itself.
    """
    rank = rank_of(d, threshold, resolution=resolution, ties_before=ties_before)
    spread = (d.amax(dim=1) - d.amin(dim=1))[:, None] if ties_before else threshold
    return percentile_of(rank, spread, d.shape[1], resolution, ties_before, counted)


def percentile_of(
    rank: Int[Tensor, "b m"],
    spread: Float[Tensor, "b #m"],
    n: int,
    resolution: float,
    ties_before: bool,
    counted: int | Int[Tensor, "b #m"],
) -> Float[Tensor, "b m"]:
    """The same for a rank that is known; `spread` is the farthest minus the nearest distance of the ranking."""
    if ties_before:
        rank = torch.where(spread <= resolution, n, rank - counted)
    return rank.to(spread.dtype) / n


def in_front(ranks: Float[Tensor, "b m"], n: int, places: int) -> Tensor:
    """Whether all percentile ranks are among the first `places` of n."""
    return (ranks * n < places - 0.5).all(dim=1)


def at_the_end(ranks: Float[Tensor, "b m"], n: int, places: int) -> Tensor:
    """Whether all percentile ranks are among the last `places` of n."""
    return (ranks * n > n - places - 0.5).all(dim=1)
