"""Attacks and profiles by name, as the command line and RobRank's attack strings write them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robustdml.adversary import L2, Adversary, Ball, Linf, Pgd
from robustdml.attacks.goals import Candidate, EmbeddingShift, Goal, Mismatch, Misrank, Query, TargetedMismatch, TopOut
from robustdml.plugins import from_module, installed
from robustdml.profile import PROFILES, Measurement, Profile, nine_goals, profile_from_json
from robustdml.serial import nearest, number

ATTACKS: dict[str, Callable[[int], Goal]] = {
    "CA+": lambda count: Candidate("raise", count, unique=True),
    "CA-": lambda count: Candidate("lower", count, unique=True),
    "QA+": lambda count: Query("raise", count, unique=True),
    "QA-": lambda count: Query("lower", count, unique=True),
    "TMA": lambda count: TargetedMismatch(unique=True),
    "ES": lambda count: EmbeddingShift(),
    "LTM": lambda count: Misrank(),
    "GTM": lambda count: Mismatch(),
    "GTT": lambda count: TopOut(),
    "LTM-published": lambda count: Misrank("included"),
    "GTM-published": lambda count: Mismatch("as-published"),
}
"""Goals by name, for a number of queries (CA) or candidates (QA). Targets are corrected unless called "-published"."""
COUNTED = ("CA+", "CA-", "QA+", "QA-")
KEYS = ("pm", "eps", "alpha", "pgditer", "W", "M")
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
        count: W of CA or M of QA.
    """

    base: str
    goal: Goal
    published: bool = False
    count: int = 1
    eps: float | None = None
    step_size: float | None = None
    steps: int | None = None


def named(text: str, count: int | None = None) -> Named:
    """The attack of a name such as `CA+`, or of an attack string such as `CA:pm=+:W=1:eps=0.03137:pgditer=32`.

    A string stands for the published attack, faulty targets included; a bare name for the corrected one.

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
        hint = " CA and QA need a direction: pm=+ or pm=-." if name in ("CA", "QA") else ""
        raise ValueError(f"unknown attack {name!r}.{hint} {nearest(name, known)}")
    written = settings.get("W" if base.startswith("CA") else "M")
    targets = count if count is not None else int(written) if written else 1
    if targets < 1 or (targets > 1 and base not in COUNTED):
        raise ValueError(f"--count must be 1 for {name}, and at least 1 for {', '.join(COUNTED)}; got {targets}.")
    goal = ATTACKS[name](targets) if name in ATTACKS else plugged[name]()
    if parts and base in ATTACKS:
        goal = nine_goals(published=True)[base]
        if isinstance(goal, Candidate):
            goal = replace(goal, queries=targets)
        elif isinstance(goal, Query):
            goal = replace(goal, candidates=targets)
    return Named(
        base,
        goal,
        bool(parts) or name.endswith("-published"),
        targets,
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


def profile_named(text: str) -> Profile:
    """The profile of a name, a JSON file or a `module:callable` that returns one.

    Raises:
        ValueError: if there is none, or it is malformed.
    """
    if text in PROFILES:
        return PROFILES[text]
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


def attack_profile(
    text: str,
    shape: tuple[int, int, int],
    *,
    count: int | None = None,
    eps: float | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    norm: str = "linf",
    random_start: bool = False,
) -> Profile:
    """A profile of one attack, called attack-NAME; what is not given follows the attack string, then the default.

    What departs from the default is part of the name (attack-ES-eps8-steps64, eps in 1/255 for linf), so that results
    with another budget are other files.

    Raises:
        ValueError: for an unknown name or a budget that makes no sense.
    """
    found = named(text, count)
    usual = default_adversary(shape)
    assert isinstance(usual.search, Pgd)
    radius = eps if eps is not None else found.eps
    iterations = steps if steps is not None else found.steps if found.steps is not None else usual.search.steps
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
        usual_size = min(usual.search.step_size, ball.eps)
    search = Pgd(iterations, usual_size if size is None else size, random_start)
    name = f"attack-{found.base}" + "-published" * found.published
    name += f"-{found.count}" * (found.count != 1) + "-l2" * (norm == "l2")
    if ball != usual.ball:
        name += f"-eps{ball.eps:g}" if norm == "l2" else f"-eps{round(255 * ball.eps, 4):g}"
    name += f"-steps{iterations}" * (iterations != usual.search.steps)
    name += f"-size{round(255 * search.step_size, 4):g}" * (search.step_size != usual_size) + "-random" * random_start
    protocol = "targets as published" if found.published else "corrected targets, drawn without repetition"
    measurement = Measurement(found.base, found.goal, Adversary(ball, search))
    return Profile(name, (measurement,), published=found.published, note=f"one attack, {protocol}")
