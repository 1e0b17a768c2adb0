"""Every attack that has a name: one table for profiles, the command line and RobRank's attack strings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from robustdml.attacks.goals import (
    Agnostic,
    Candidate,
    DynamicWeight,
    EmbeddingShift,
    Goal,
    LeaveClass,
    Misclassify,
    Mismatch,
    Misrank,
    Order,
    PreservingOrder,
    PreservingQuery,
    Query,
    TargetedMismatch,
    TopOut,
)

Direction = Literal["raise", "lower"]
DIRECTIONS: dict[str, Direction] = {"+": "raise", "-": "lower"}


@dataclass(frozen=True)
class NamedGoal:
    """What a name stands for.

    Attributes:
        make: the goal for a number of targets; as RobRank's figures were made, faults included, or with right targets
            drawn without repetition.
        count: W of CA or M of the others if none is given; 0 where the number of targets is fixed.
        search: "pgd" moves each image its own way; "universal" finds one displacement on half of a block and applies
            it to all; "averaged" moves all images of a block by the direction of their mean gradient.
    """

    make: Callable[[int, bool], Goal]
    count: int = 0
    search: Literal["pgd", "universal", "averaged"] = "pgd"

    def goal(self, count: int | None = None, *, published: bool = False) -> Goal:
        """The goal itself."""
        return self.make(self.count if count is None else count, published)


def _directed(sign: str) -> dict[str, NamedGoal]:
    """The attacks that raise, or lower, something."""
    d = DIRECTIONS[sign]
    sampling: Literal["local", "visual"] = "local" if d == "raise" else "visual"
    return {
        f"CA{sign}": NamedGoal(lambda n, published: Candidate(d, n, unique=not published), 1),
        f"QA{sign}": NamedGoal(lambda n, published: Query(d, n, unique=not published), 1),
        f"SPQA{sign}": NamedGoal(lambda n, published: PreservingQuery(d, n, unique=not published), 1),
        f"CA{sign}-distance": NamedGoal(lambda n, published: Candidate(d, n, not published, "distance"), 1),
        f"QA{sign}-distance": NamedGoal(lambda n, published: Query(d, n, not published, "distance"), 1),
        f"SPQA{sign}-distance": NamedGoal(
            lambda n, published: PreservingQuery(d, n, not published, objective="distance"), 1
        ),
        f"CA{sign}-{sampling}": NamedGoal(lambda n, published: Candidate(d, n, not published, sampling=sampling), 1),
        f"QA{sign}-{sampling}": NamedGoal(lambda n, published: Query(d, n, not published, sampling=sampling), 1),
        f"CA{sign}-universal": NamedGoal(lambda n, published: Agnostic(Candidate(d)), search="universal"),
        f"QA{sign}-universal": NamedGoal(lambda n, published: Agnostic(Query(d)), search="universal"),
    }


_OTHERS = {
    "TMA": NamedGoal(lambda n, published: TargetedMismatch(unique=not published)),
    "ES": NamedGoal(lambda n, published: EmbeddingShift()),
    "LTM": NamedGoal(lambda n, published: Misrank("included" if published else "excluded")),
    "GTM": NamedGoal(lambda n, published: Mismatch("as-published" if published else "nearest")),
    "GTT": NamedGoal(lambda n, published: TopOut()),
    "LTM-published": NamedGoal(lambda n, published: Misrank("included")),
    "GTM-published": NamedGoal(lambda n, published: Mismatch("as-published")),
    "LTM-nearest": NamedGoal(lambda n, published: Misrank(pulled="nearest")),
    "leave-class": NamedGoal(lambda n, published: LeaveClass()),
    "FOA": NamedGoal(lambda n, published: Order(n), 2),
    "SPFOA": NamedGoal(lambda n, published: PreservingOrder(n), 2),
    "misclassify": NamedGoal(lambda n, published: Misclassify()),
    "misclassify-next": NamedGoal(lambda n, published: Misclassify("next")),
    "misclassify-random": NamedGoal(lambda n, published: Misclassify("random")),
    "misclassify-universal": NamedGoal(lambda n, published: Misclassify(), search="averaged"),
}
NINE = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES", "LTM", "GTM", "GTT")
"""The attacks of ERS in published order."""
_ALL = {**_directed("+"), **_directed("-"), **_OTHERS}
ATTACKS: Mapping[str, NamedGoal] = {name: _ALL[name] for name in dict.fromkeys([*NINE, *_ALL])}
"""Goals by name, those of ERS first. Targets are corrected unless the name ends in "-published"."""


def nine_goals(published: bool) -> dict[str, Goal]:
    """The attacks of ERS, with the published faults (Q1, Q2, Q4 of RobRank) or without."""
    return {name: ATTACKS[name].goal(published=published) for name in NINE}


def with_kappa(goal: Goal, kappa: float) -> Goal:
    """The goal with this kappa in its dynamic weight, if it has one without."""
    weight = goal.weight if isinstance(goal, (PreservingQuery, PreservingOrder)) else None
    if (
        isinstance(goal, (PreservingQuery, PreservingOrder))
        and isinstance(weight, DynamicWeight)
        and weight.kappa is None
    ):
        return replace(goal, weight=replace(weight, kappa=kappa))
    return goal
