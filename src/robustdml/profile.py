"""Profiles: which attacks a benchmark consists of."""

from dataclasses import dataclass
from functools import cache

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks.attack import Attack
from robustdml.attacks.goals import (
    GOALS,
    Candidate,
    EmbeddingShift,
    Goal,
    Mismatch,
    Misrank,
    Query,
    TargetedMismatch,
    TopOut,
)
from robustdml.plugins import installed
from robustdml.recipe import component_types
from robustdml.score import COMPONENTS
from robustdml.serial import Json, read_as, to_json


@dataclass(frozen=True)
class Measurement:
    """A named attack of a profile."""

    name: str
    goal: Goal
    adversary: Adversary

    @property
    def attack(self) -> Attack:
        """The attack itself."""
        return Attack(self.goal, self.adversary)


@dataclass(frozen=True)
class Profile:
    """A list of attacks under one name.

    Args:
        measurements: in the order in which they run.
        batch: attacked images per batch; fixed, so that no result depends on it.
        published: whether it follows a publication to the letter, faults included, so that ERS compares with tables.

    Raises:
        ValueError: for an empty profile, or a name used twice.
    """

    name: str
    measurements: tuple[Measurement, ...]
    batch: int = 128
    published: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        names = [m.name for m in self.measurements]
        if not names:
            raise ValueError(f"profile {self.name!r} lists no attack. Give at least one measurement.")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(
                f"profile {self.name!r} names {', '.join(twice)} twice. Give every measurement its own name."
            )
        if self.batch < 1:
            raise ValueError(f"profile {self.name!r} needs batch >= 1, got {self.batch}.")

    @property
    def has_ers(self) -> bool:
        """Whether all ten components of ERS are measured."""
        return {c.attack for c in COMPONENTS.values()} <= {m.name for m in self.measurements}


def nine_goals(published: bool) -> dict[str, Goal]:
    """The attacks of ERS in published order, with the published faults (Q1, Q2, Q4 of RobRank) or without."""
    unique = not published
    return {
        "CA+": Candidate("raise", unique=unique),
        "CA-": Candidate("lower", unique=unique),
        "QA+": Query("raise", unique=unique),
        "QA-": Query("lower", unique=unique),
        "TMA": TargetedMismatch(unique=unique),
        "ES": EmbeddingShift(),
        "LTM": Misrank("included" if published else "excluded"),
        "GTM": Mismatch("as-published" if published else "nearest"),
        "GTT": TopOut(),
    }


def _rob(name: str, adversary: Adversary, published: bool, batch: int, note: str) -> Profile:
    goals = nine_goals(published)
    if published:
        goals["GTM-corrected"] = Mismatch()  # for the worst case; not part of ERS
    measurements = tuple(Measurement(n, goal, adversary) for n, goal in goals.items())
    return Profile(name, measurements, batch, published, note)


_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
_224 = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=3 / 255))
_AS_PUBLISHED = "published protocol, faulty GTM and LTM targets included, for comparison with tables"
_STRICT = "corrected GTM and LTM targets, unique draws"

PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        _rob("rob28", _28, True, 128, f"28x28 grey images: {_AS_PUBLISHED}"),
        _rob("rob28-strict", _28, False, 128, f"28x28 grey images: {_STRICT}"),
        _rob("rob32", _224, True, 128, f"32x32 colour images with the budget of rob224: {_AS_PUBLISHED}"),
        _rob("rob32-strict", _224, False, 128, f"32x32 colour images with the budget of rob224: {_STRICT}"),
        _rob("rob224", _224, True, 112, f"224x224 images: {_AS_PUBLISHED}"),
        _rob("rob224-strict", _224, False, 112, f"224x224 images: {_STRICT}"),
    )
}


@cache
def profile_types() -> dict[str, type]:
    """Every class a profile file may name."""
    own = {c.__name__: c for c in (Profile, Measurement)}
    return component_types() | own | {c.__name__: c for c in GOALS.values()} | dict(installed("goals"))


def profile_to_json(profile: Profile) -> Json:
    """Every attack with all its parameters."""
    return to_json(profile)


def profile_from_json(value: Json, where: str = "profile") -> Profile:
    """A profile of one's own.

    Raises:
        ValueError: naming the field that is unknown or malformed.
    """
    return read_as(Profile, value, profile_types(), where)
