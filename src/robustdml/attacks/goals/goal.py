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
        """Built once per batch: closes over what is constant."""
        ...

    def score(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Score:
        """Built once per batch and called before and after the attack. Ties count for the attacker."""
        ...

    def achieved(self, scene: Scene, aims: Int[Tensor, "b m"]) -> Achieved:
        """Whether the attacker has got all there is to get, for one row per unit."""
        ...


def rows_of(table: Tensor, unit: Int[Tensor, "n"]) -> Tensor:
    """`table[unit]`, without a copy where every unit stands for itself."""
    in_order = len(unit) == len(table) and bool((unit[:1] == 0).all()) and bool((unit.diff() == 1).all())
    return table if in_order else table[unit]


def no_targets(scene: Scene) -> Int[Tensor, "b 0"]:
    """The aims of a goal without targets."""
    return torch.empty(len(scene.clean), 0, dtype=torch.long, device=scene.clean.device)


def anywhere(scene: Scene, count: int, unique: bool, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
    """`count` gallery rows drawn uniformly; with repetitions and the own row possible unless `unique`.

    Raises:
        ValueError: if the gallery is too small.
    """
    if not unique:
        return draws.integers("target", index, scene.size, (count,))
    others = scene.size - (scene.itself is not None)
    if count > others:
        raise ValueError(
            f"{count} different targets cannot be drawn from {others} other gallery items. Use fewer targets, a larger "
            "gallery or unique=False."
        )
    if scene.itself is None:
        return draws.permutation("target", index, scene.size)[:, :count]
    rows = draws.permutation("target", index, scene.size - 1)[:, :count]
    return rows + (rows >= scene.itself[:, None])


def of_the_head(scene: Scene, count: int, repeat: bool, draws: Draws, index: Int[Tensor, "b"]) -> Int[Tensor, "b m"]:
    """`count` rows of the head of the clean ranking, with or without repetitions.

    Raises:
        ValueError: if the gallery is too small.
    """
    head = scene.nearest.shape[1]
    if count > head and not repeat:
        raise ValueError(
            f"{count} targets cannot be drawn from the {head} nearest of a gallery of {scene.size} items. Use fewer "
            "targets or a larger gallery."
        )
    if repeat:
        places = draws.integers("target", index, head, (count,))
    else:
        places = draws.permutation("target", index, head)[:, :count]
    return scene.nearest.gather(1, places)


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
    n = d.shape[1]
    rank = rank_of(d, threshold, resolution=resolution, ties_before=ties_before)
    if ties_before:
        meaningless = (d.amax(dim=1) - d.amin(dim=1) <= resolution)[:, None]
        rank = torch.where(meaningless, n, rank - counted)
    return rank.to(d.dtype) / n
