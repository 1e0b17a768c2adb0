"""Profiles: which attacks a benchmark consists of."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from robustdml.adversary import Adversary, InTurn, Linf, Nes, Pgd
from robustdml.attacks.attack import Attack, check_search
from robustdml.attacks.goals import (
    GOALS,
    WEIGHTS,
    Candidate,
    EmbeddingShift,
    FixedWeight,
    Goal,
    LeaveClass,
    Misclassify,
    Mismatch,
    Misrank,
    PreservingQuery,
)
from robustdml.attacks.goals.preserving import kappa_of
from robustdml.attacks.named import DIRECTIONS, nine_goals, with_kappa
from robustdml.deep_metric import DeepMetric
from robustdml.plugins import installed
from robustdml.recipe import component_types
from robustdml.score import COMPONENTS
from robustdml.serial import Json, read_as, to_json
from robustdml.types import RunReference


@dataclass(frozen=True)
class Measurement:
    """A named attack of a profile.

    Args:
        stream: names the random draws; the name itself if empty. Measurements that differ in budget or number of
            targets alone share one, so that they aim at the same items.
        surrogate, energy_gallery: as in `Attack`.
    """

    name: str
    goal: Goal
    adversary: Adversary
    stream: str = ""
    surrogate: RunReference | None = None
    energy_gallery: Literal["surrogate", "target"] = "surrogate"

    def __post_init__(self) -> None:
        check_search(self.goal, self.adversary.search)

    @property
    def attack(self) -> Attack:
        """The attack itself."""
        return Attack(self.goal, self.adversary, self.surrogate, self.energy_gallery)


@dataclass(frozen=True)
class Profile:
    """A list of attacks under one name.

    Args:
        measurements: in the order in which they run.
        batch: attacked images per batch; fixed, so that no result depends on it.
        published: whether it follows a publication to the letter, faults included, so that ERS compares with tables.
        smallest_side, largest_side: the images it is meant for, by the longer of their sides.

    Raises:
        ValueError: for an empty profile, or a name used twice.
    """

    name: str
    measurements: tuple[Measurement, ...]
    batch: int = 128
    published: bool = False
    note: str = ""
    smallest_side: int = 1
    largest_side: int | None = None

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

    @property
    def of_classes(self) -> bool:
        """Whether all its attacks are on class scores."""
        return all(isinstance(m.goal, Misclassify) for m in self.measurements)

    def metric(self, trained: DeepMetric) -> DeepMetric:
        """What it attacks of a trained metric: of a hybrid the class scores, if all its attacks are on those."""
        return trained.classifier() if self.of_classes and trained.prototypes is not None else trained

    def check_images(self, shape: tuple[int, int, int]) -> None:
        """Raise if the budget is meant for images of another size.

        Raises:
            ValueError: naming both sizes and a profile that fits.
        """
        channels, height, width = shape
        side = max(height, width)
        if self.smallest_side <= side and (self.largest_side is None or side <= self.largest_side):
            return
        wanted = f"up to {self.largest_side}" if self.largest_side is not None else f"of at least {self.smallest_side}"
        size = 28 if side <= 28 and channels == 1 else 32 if side < LARGE else 224
        other = f"{'class' if self.of_classes else 'rob'}{size}"
        raise ValueError(
            f"profile {self.name} is meant for images {wanted} pixels wide, these are {channels}x{height}x{width}: its "
            f"budget would mean something else for them. Use {other}, or a profile file of your own."
        )


_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
_224 = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=3 / 255))
LARGE = 65
"""RobRank tells its two kinds of images apart at a width of 64."""
_AS_PUBLISHED = "published protocol, faulty GTM and LTM targets included, for comparison with tables"
_STRICT = "corrected GTM and LTM targets, unique draws"
STRONG_STEPS, RESTARTS = 100, 5
COUNTS = (1, 2, 5, 10)
"""W of CA and M of SP-QA in the profiles that vary them."""


def _rob(
    name: str, adversary: Adversary, published: bool, note: str, largest: int | None, smallest: int = 1
) -> Profile:
    goals = nine_goals(published)
    if published:
        goals["GTM-corrected"] = Mismatch()  # for the worst case; not part of ERS
    measurements = tuple(Measurement(n, goal, adversary) for n, goal in goals.items())
    return Profile(name, measurements, 112 if largest is None else 128, published, note, smallest, largest)


def _class(name: str, adversary: Adversary, note: str, smallest: int, largest: int | None) -> Profile:
    single = replace(adversary, search=Pgd(steps=1, step_size=adversary.ball.eps))
    measurements = (
        Measurement("misclassify", Misclassify(), adversary),
        Measurement("misclassify-fgsm", Misclassify(), single),
        Measurement("misclassify-next", Misclassify("next"), adversary),
    )
    full = f"{note}: away from the own class in many steps and in one, and towards the next"
    return Profile(name, measurements, 112 if largest is None else 128, False, full, smallest, largest)


def _candidate_attacks(counts: Iterable[int], budgets: Iterable[Adversary]) -> list[Measurement]:
    return [
        Measurement(_label(f"CA{sign} W={w}", adversary), Candidate(direction, w), adversary, f"CA{sign}")
        for adversary in budgets
        for w in counts
        for sign, direction in DIRECTIONS.items()
    ]


def _preserving_attacks(
    counts: Iterable[int], budgets: Iterable[Adversary], *, fixed: bool = False
) -> list[Measurement]:
    """SP-QA with the dynamic weight of RobRank, or with the fixed ones of ECCV 2020: 1 to raise, 100 to lower."""
    xi = {"raise": 1.0, "lower": 100.0}
    made = []
    for adversary in budgets:
        for m in counts:
            for sign, direction in DIRECTIONS.items():
                goal = PreservingQuery(direction, m)
                goal = replace(goal, weight=FixedWeight(xi[direction])) if fixed else goal
                made.append(Measurement(_label(f"SPQA{sign} M={m}", adversary), goal, adversary, f"SPQA{sign}"))
    return made


def _label(attack: str, adversary: Adversary) -> str:
    """What tells the measurements of one profile apart; eps in 1/255."""
    return f"{attack} eps={round(255 * adversary.ball.eps, 2):g}"


def _budget(eps: float, step_size: float, steps: int) -> Adversary:
    return Adversary(Linf(eps), Pgd(steps, step_size))


def _pami(name: str, budgets: list[Adversary], batch: int, smallest: int, largest: int | None) -> Profile:
    measurements = _preserving_attacks(COUNTS, budgets) + _candidate_attacks(COUNTS, budgets)
    note = "SP-QA and CA with 1, 2, 5, 10 targets at two budgets (arXiv:2106.03614), as published"
    return Profile(name, tuple(measurements), batch, True, note, smallest, largest)


def _eccv(
    name: str, budgets: list[Adversary], others: list[Adversary], batch: int, smallest: int, largest: int | None
) -> Profile:
    measurements = _candidate_attacks(COUNTS, budgets) + _preserving_attacks(COUNTS, others, fixed=True)
    note = "CA and SP-QA (fixed xi) with 1, 2, 5, 10 targets and growing eps (arXiv:2002.11293), as published"
    return Profile(name, tuple(measurements), batch, True, note, smallest, largest)


def _published_profiles() -> list[Profile]:
    small = [_budget(0.01, 1 / 255, 10), _budget(0.03, 1 / 255, 15), _budget(0.1, 0.01, 20), _budget(0.3, 0.01, 30)]
    large = [_budget(0.01, 1 / 255, 10), _budget(0.03, 1 / 255, 15), _budget(0.06, 0.006, 20)]
    curve = [_budget(7 * i / 255, 3 / 255, 32) for i in range(12)]
    pami28 = [_budget(8 / 255, 1 / 255, 32), _28]
    pami224 = [_budget(2 / 255, 1 / 255, 32), _224]
    return [
        _pami("pami28", pami28, 128, 1, 28),
        _pami("pami224", pami224, 112, LARGE, None),
        _eccv("eccv28", small, small, 128, 1, 28),
        _eccv("eccv224", [_budget(0.01, 1 / 255, 24), *large[1:]], large, 112, LARGE, None),
        Profile(
            "qccurve28", tuple(_candidate_attacks((1,), curve) + _preserving_attacks((1,), curve)), 128, True,
            "CA and SP-QA at twelve radii from 0 to 77/255 (arXiv:2106.03614), as published", 1, 28,
        ),
        _rob("cvpr", _224, True, "the setting of the CVPR 2022 tables (arXiv:2203.01439), as rob224", None, LARGE),
    ]  # fmt: skip


def _strong(name: str, eps: float, smallest: int, largest: int | None) -> Profile:
    """Recall@1 attacked over and over: five goals, 100 steps of three sizes, random starts."""
    named: dict[str, Goal] = {"ES": EmbeddingShift(), "LTM": Misrank(), "GTM": Mismatch()}
    goals = named | {"LTM-nearest": Misrank(pulled="nearest"), "leave-class": LeaveClass()}
    few, reach = STRONG_STEPS // 10, eps / STRONG_STEPS
    sizes = [Pgd(few, 2.5 * eps / few), *(Pgd(STRONG_STEPS, f * reach) for f in (2.5, 1.0, 10.0))]
    starts = [Pgd(STRONG_STEPS, 2.5 * reach, random_start=True)] * RESTARTS
    adversary = Adversary(Linf(eps), InTurn((*sizes, *starts)))
    note = (
        f"recall@1 attacked again and again, corrected: {few} steps, then {STRONG_STEPS} steps that reach 2.5, 1 and "
        f"10 times eps, then {RESTARTS} random starts, each on the queries that are left; no ERS"
    )
    measurements = tuple(Measurement(name, goal, adversary) for name, goal in goals.items())
    return Profile(name, measurements, 112 if largest is None else 128, False, note, smallest, largest)


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        _rob("rob28", _28, True, f"28x28 grey images: {_AS_PUBLISHED}", 28),
        _rob("rob28-strict", _28, False, f"28x28 grey images: {_STRICT}", 28),
        _rob("rob32", _224, True, f"32x32 colour images with the budget of rob224: {_AS_PUBLISHED}", LARGE - 1),
        _rob("rob32-strict", _224, False, f"32x32 colour images with the budget of rob224: {_STRICT}", LARGE - 1),
        _rob("rob224", _224, True, f"224x224 images: {_AS_PUBLISHED}", None, LARGE),
        _rob("rob224-strict", _224, False, f"224x224 images: {_STRICT}", None, LARGE),
        *_published_profiles(),
        _strong("strong28", 77 / 255, 1, 28),
        _strong("strong32", 8 / 255, 1, LARGE - 1),
        _strong("strong224", 8 / 255, LARGE, None),
        _class("class28", _28, "classifiers and hybrids of 28x28 grey images", 1, 28),
        _class("class32", _224, "classifiers and hybrids of 32x32 colour images", 1, LARGE - 1),
        _class("class224", _224, "classifiers and hybrids of 224x224 images", LARGE, None),
    )
}


def for_data(profile: Profile, name: str) -> Profile:
    """The profile with the published kappa of a data set wherever a dynamic weight of SP-QA has none."""
    measurements = tuple(replace(m, goal=with_kappa(m.goal, kappa_of(name))) for m in profile.measurements)
    return profile if measurements == profile.measurements else replace(profile, measurements=measurements)


def reach_of_l2(eps: float, steps: int) -> float:
    """The step size of an l2 search if none is given: 2.5 times the radius in all steps, enough to cross the ball."""
    return 2.5 * eps / max(1, steps)


def black_box(profile: Profile, *, population: int | None = None) -> Profile:
    """The profile with the search `Nes` for as many steps, called NAME-nes; the draws stay the same.

    Steps are 3/255 as published, in l2 those of `reach_of_l2`. Attacks of a single step have no black-box form, since
    an estimate does not carry through the whole ball at once; they are left out.

    Raises:
        ValueError: for a search without a black-box form, or if nothing is left.
    """
    usual = Nes()
    found, left_out = [], []
    for m in profile.measurements:
        search, ball = m.adversary.search, m.adversary.ball
        if not isinstance(search, Pgd) or search.universal:
            raise ValueError(f"{m.name}: {type(search).__name__} has no black-box form. Use a profile of Pgd attacks.")
        if search.steps > 1:
            size = usual.step_size if isinstance(ball, Linf) else reach_of_l2(ball.eps, search.steps)
            nes = Nes(search.steps, usual.population if population is None else population, None, size)
            found.append(replace(m, adversary=Adversary(ball, nes)))
        else:
            left_out.append(m.name)
    if not found:
        raise ValueError(f"profile {profile.name} has single steps only, which have no black-box form. Use more steps.")
    name = f"{profile.name}-nes" + f"-{population}" * (population not in (None, usual.population))
    without = f"; without the single steps {', '.join(left_out)}" if left_out else ""
    return replace(profile, name=name, measurements=tuple(found), note=f"{profile.note}; black box{without}")


def transferred(
    profile: Profile, surrogate: RunReference, label: str, energy_gallery: Literal["surrogate", "target"] = "surrogate"
) -> Profile:
    """The profile with every attack made on a surrogate, called NAME-from-LABEL."""
    name = f"{profile.name}-from-{label}" + "-as-published" * (energy_gallery == "target")
    measurements = tuple(replace(m, surrogate=surrogate, energy_gallery=energy_gallery) for m in profile.measurements)
    return replace(profile, name=name, measurements=measurements, note=f"{profile.note}; transferred from {label}")


@cache
def profile_types() -> dict[str, type]:
    """Every class a profile file may name."""
    own: dict[str, type] = {c.__name__: c for c in (Profile, Measurement, *GOALS.values(), *WEIGHTS.values())}
    return component_types() | own | dict(installed("goals"))


def profile_to_json(profile: Profile) -> Json:
    """Every attack with all its parameters."""
    return to_json(profile)


def profile_from_json(value: Json, where: str = "profile") -> Profile:
    """A profile of one's own.

    Raises:
        ValueError: naming the field that is unknown or malformed.
    """
    return read_as(Profile, value, profile_types(), where)
