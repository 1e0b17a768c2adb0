"""Attacks and profiles by name, as the command line and RobRank's attack strings write them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from robustdml.adversary import L2, Adversary, Ball, Linf, Nes, Pgd, Search, Universal
from robustdml.attacks.goals import DynamicWeight, FixedWeight, Goal, PreservingOrder, PreservingQuery, Weight
from robustdml.attacks.goals.preserving import kappa_of
from robustdml.attacks.named import ATTACKS, with_kappa
from robustdml.plugins import from_module, installed
from robustdml.profile import PROFILES, Measurement, Profile, black_box, for_data, profile_from_json
from robustdml.serial import nearest, number

__all__ = ["ATTACKS", "attack_profile", "default_adversary", "named", "profile_named", "searched"]

COUNTED = tuple(name for name, own in ATTACKS.items() if own.count)
KEYS = ("pm", "eps", "alpha", "pgditer", "W", "M")
SIGNED = ("CA", "QA", "SPQA")
GREY_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
OTHERS = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=3 / 255))
_L2_REACH = 2.5
"""An L2 search without a given step size takes steps of 2.5 eps / steps, enough to cross the ball."""


@dataclass(frozen=True)
class Named:
    """What a name says, before defaults.

    Attributes:
        base: the name of the measurement, as in a scorecard.
        published: whether targets are drawn as RobRank does.
        count: W of CA or M of the others.
        usual_count: what it is if none is given.
    """

    base: str
    goal: Goal
    published: bool = False
    count: int = 1
    usual_count: int = 1
    eps: float | None = None
    step_size: float | None = None
    steps: int | None = None


def named(text: str, count: int | None = None, *, data: str = "") -> Named:
    """The attack of a name such as `CA+`, or of an attack string such as `CA:pm=+:W=1:eps=0.03137:pgditer=32`.

    A string stands for the published attack, faulty targets included; a bare name for the corrected one.

    Args:
        count: number of targets.
        data: name of the data set, which decides kappa of SP attacks.

    Raises:
        ValueError: for an unknown name, key or value.
    """
    name, *parts = text.split(":")
    settings = dict(_setting(part, text) for part in parts)
    name += settings.pop("pm", "")
    if name == "GTM-corrected":
        name = "GTM"
    base = name.removesuffix("-published")
    plugged = installed("goals")
    known = [*ATTACKS, *plugged]
    if name not in known:
        hint = f" {', '.join(SIGNED)} need a direction: pm=+ or pm=-." if name in SIGNED else ""
        raise ValueError(f"unknown attack {name!r}.{hint} {nearest(name, known)}")
    written = settings.get("W" if base.startswith("CA") else "M")
    usual = ATTACKS[name].count if name in ATTACKS else 0
    targets = count if count is not None else int(written) if written else usual or 1
    if targets < 1 or (targets > 1 and not usual):
        raise ValueError(f"--count must be 1 for {name}, and at least 1 for {', '.join(COUNTED)}; got {targets}.")
    published = name in ATTACKS and (bool(parts) or name.endswith("-published"))
    goal = ATTACKS[base].goal(targets, published=published) if base in ATTACKS else plugged[name]()
    return Named(
        base,
        with_kappa(goal, kappa_of(data)),
        published,
        targets,
        usual or 1,
        number(settings["eps"]) if "eps" in settings else None,
        number(settings["alpha"]) if "alpha" in settings else None,
        int(settings["pgditer"]) if "pgditer" in settings else None,
    )


def _setting(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if key not in KEYS or not equals:
        raise ValueError(f"{text}: cannot read {part!r}. {nearest(key, list(KEYS))} An example: CA:pm=+:W=1:eps=8/255")
    valid = value in ("+", "-") if key == "pm" else value.isdigit() if key in ("pgditer", "W", "M") else bool(value)
    if not valid:
        wanted = "+ or -" if key == "pm" else "a whole number" if key in ("pgditer", "W", "M") else "a number"
        raise ValueError(f"{text}: {key} must be {wanted}, got {value!r}.")
    return key, value


def default_adversary(shape: tuple[int, int, int]) -> Adversary:
    """The published budget: 77/255 for grey images of at most 28x28 (rob28), else 8/255; 32 steps of 3/255."""
    channels, height, width = shape
    return GREY_28 if channels == 1 and max(height, width) <= 28 else OTHERS


def profile_named(text: str, *, data: str = "") -> Profile:
    """The profile of a name, a JSON file or a `module:callable` that returns one.

    Args:
        data: name of the data set, which decides kappa of SP attacks in our own profiles.

    Raises:
        ValueError: if there is none, or it is malformed.
    """
    if text in PROFILES:
        return for_data(PROFILES[text], data)
    if text.endswith(".json"):
        try:
            return profile_from_json(json.loads(Path(text).read_text(encoding="utf-8")), text)
        except OSError as error:
            raise ValueError(f"profile {text}: {error.strerror}. {nearest(text, list(PROFILES))}") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"profile {text}: not a JSON file ({error}).") from error
    if ":" in text:
        made = from_module(text)()
        if not isinstance(made, Profile):
            raise ValueError(f"{text} returned {type(made).__name__}, expected a robustdml.profile.Profile.")
        return made
    raise ValueError(
        f"unknown profile {text!r}. {nearest(text, list(PROFILES))} Also accepted: a JSON file, or module:callable."
    )


def searched(profile: Profile, search: str, population: int | None = None) -> Profile:
    """The profile with the search that the command line names.

    Raises:
        ValueError: for a population without the search that has one.
    """
    if search == "nes":
        return black_box(profile, population=population)
    if population is not None:
        raise ValueError("--population belongs to the black-box search: add --search nes.")
    return profile


def attack_profile(
    text: str,
    shape: tuple[int, int, int],
    *,
    data: str = "",
    count: int | None = None,
    eps: float | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    norm: str = "linf",
    random_start: bool = False,
    search: str = "pgd",
    population: int | None = None,
    xi: str | None = None,
) -> Profile:
    """A profile of one attack, called attack-NAME; what is not given follows the attack string, then the default.

    What departs from the default is part of the name (attack-ES-eps8-steps64, eps in 1/255 for linf), so that results
    with another budget are other files.

    Args:
        data: name of the data set, which decides kappa of SP attacks.
        search: "pgd", or "nes" for a black-box search, whose step size is 3/255 if none is given.
        population: of "nes".
        xi: weight of what SP attacks preserve: "batch", "image" or a fixed number.

    Raises:
        ValueError: for an unknown name or a budget that makes no sense.
    """
    found = named(text, count, data=data)
    goal = found.goal if xi is None else _with_xi(found.goal, xi, data)
    universal = found.base in ATTACKS and ATTACKS[found.base].universal
    usual = default_adversary(shape)
    assert isinstance(usual.search, Pgd)
    radius = eps if eps is not None else found.eps
    usual_steps = Universal().steps if universal else usual.search.steps
    iterations = steps if steps is not None else found.steps if found.steps is not None else usual_steps
    size = step_size if step_size is not None else found.step_size
    if norm not in ("linf", "l2"):
        raise ValueError(f"--norm must be linf or l2, got {norm!r}.")
    ball: Ball
    if norm == "l2":
        if radius is None:
            raise ValueError("no L2 budget is published: give one with --eps, e.g. --norm l2 --eps 0.5")
        ball, usual_size = L2(radius), _L2_REACH * radius / max(1, iterations)
    else:
        ball = Linf(usual.ball.eps if radius is None else radius)
        usual_size = min(Universal().step_size if universal else usual.search.step_size, ball.eps)
    chosen = _search(search, iterations, usual_size if size is None else size, random_start, population, universal)
    name = f"attack-{found.base}" + "-published" * found.published
    name += f"-{found.count}" * (found.count != found.usual_count) + "-l2" * (norm == "l2")
    name += "-nes" * isinstance(chosen, Nes) + f"-population{population}" * (population is not None)
    if ball != usual.ball:
        name += f"-eps{ball.eps:g}" if norm == "l2" else f"-eps{round(255 * ball.eps, 4):g}"
    name += f"-steps{iterations}" * (iterations != usual_steps)
    given = usual_size if size is None else size
    name += f"-size{round(255 * given, 4):g}" * (given != usual_size) + "-random" * random_start
    name += f"-xi-{xi}" * (xi is not None)
    protocol = "targets as published" if found.published else "corrected targets, drawn without repetition"
    measurement = Measurement(found.base, goal, Adversary(ball, chosen))
    return Profile(name, (measurement,), published=found.published, note=f"one attack, {protocol}")


def _search(
    kind: str, steps: int, step_size: float, random_start: bool, population: int | None, universal: bool
) -> Search:
    if kind not in ("pgd", "nes"):
        raise ValueError(f"--search must be pgd or nes, got {kind!r}.")
    if population is not None and kind != "nes":
        raise ValueError("--population belongs to the black-box search: add --search nes.")
    if random_start and (kind == "nes" or universal):
        raise ValueError("--random-start is defined for pgd on single images only.")
    if universal:
        if kind == "nes":
            raise ValueError("a universal attack has no black-box form: leave out --search nes.")
        return Universal(steps, step_size)
    if kind == "nes":
        return Nes(steps, Nes().population if population is None else population, None, step_size)
    return Pgd(steps, step_size, random_start)


def _with_xi(goal: Goal, xi: str, data: str) -> Goal:
    if not isinstance(goal, (PreservingQuery, PreservingOrder)):
        raise ValueError(f"--xi belongs to the attacks that preserve something (SPQA+, SPQA-, SPFOA), got {goal}.")
    weight: Weight
    if xi in ("batch", "image"):
        weight = DynamicWeight(kappa_of(data), "batch" if xi == "batch" else "image")
    else:
        weight = FixedWeight(number(xi))
    return replace(goal, weight=weight)
