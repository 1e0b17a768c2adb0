"""Attacks and profiles by name, as the command line and RobRank's attack strings write them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from robustdml.adversary import L2, Adversary, Ball, Linf, Nes, Pgd, Search, Universal, eccv_schedule
from robustdml.attacks.goals import GOALS, DynamicWeight, FixedWeight, Goal, PreservingOrder, PreservingQuery, Weight
from robustdml.attacks.named import ATTACKS
from robustdml.plugins import from_module, installed
from robustdml.profile import (
    LARGE,
    PROFILES,
    Measurement,
    Profile,
    black_box,
    profile_from_json,
    reach_of_l2,
)
from robustdml.serial import nearest, number

__all__ = ["ATTACKS", "attack_profile", "default_adversary", "named", "profile_named", "searched"]

COUNTED = tuple(name for name, own in ATTACKS.items() if own.count)
BUDGET_KEYS = ("eps", "alpha", "pgditer")
TARGET_KEYS = {"CA": ("pm", "W"), "QA": ("pm", "M"), "SPQA": ("pm", "M"), "FOA": ("pm", "M"), "SPFOA": ("pm", "M")}
SIGNED = ("CA", "QA", "SPQA")
GREY_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
OTHERS = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=3 / 255))


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


def named(text: str, count: int | None = None) -> Named:
    """The attack of a name such as `CA+`, or of an attack string such as `CA:pm=+:W=1:eps=0.03137:pgditer=32`.

    A string stands for the published attack, faulty targets included; a bare name for the corrected one.

    Args:
        count: number of targets.

    Raises:
        ValueError: for an unknown name, key or value, a key that the attack does not have, or one given twice.
    """
    name, *parts = text.split(":")
    settings = _settings(text, name, parts)
    sign = settings.pop("pm", "")
    if name in SIGNED:
        name += sign
    elif sign == "-":
        raise ValueError(f"{text}: {name} has one direction only. Leave out pm, or write pm=+.")
    if name == "GTM-corrected":
        name = "GTM"
    base = name.removesuffix("-published")
    plugged = unnamed_goals()
    known = [*ATTACKS, *plugged]
    if name not in known:
        hint = f" {', '.join(SIGNED)} need a direction: pm=+ or pm=-." if name in SIGNED else ""
        raise ValueError(f"unknown attack {name!r}.{hint} {nearest(name, known)}")
    written = settings.get("W", settings.get("M"))
    usual = ATTACKS[name].count if name in ATTACKS else 0
    targets = count if count is not None else int(written) if written else usual or 1
    if targets < 1 or (targets > 1 and not usual):
        wanted = "at least 1" if usual else f"1, as for all but {', '.join(COUNTED)}"
        raise ValueError(f"the number of targets (--count, W or M) of {name} must be {wanted}; got {targets}.")
    published = name in ATTACKS and (bool(parts) or name.endswith("-published"))
    return Named(
        base,
        ATTACKS[base].goal(targets, published=published) if base in ATTACKS else plugged[name](),
        published,
        targets,
        usual or 1,
        float(settings["eps"]) if "eps" in settings else None,
        float(settings["alpha"]) if "alpha" in settings else None,
        int(settings["pgditer"]) if "pgditer" in settings else None,
    )


def unnamed_goals() -> dict[str, type]:
    """Goals that no name in `ATTACKS` stands for, ours and of plug-ins: they go by the names of their classes."""
    named_ones = {type(own.goal()) for own in ATTACKS.values()}
    return {name: cls for name, cls in {**GOALS, **installed("goals")}.items() if cls not in named_ones}


def _settings(text: str, name: str, parts: list[str]) -> dict[str, str]:
    """The keys of an attack string; which ones an attack has depends on its name."""
    known = [*BUDGET_KEYS, *TARGET_KEYS.get(name, ())]
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise ValueError(
                f"{text}: cannot read {part!r}. {nearest(key, known)} {name} takes {', '.join(known)}. An example: "
                "CA:pm=+:W=1:eps=8/255"
            )
        if key in found:
            raise ValueError(f"{text}: {key} is given twice. Give it once.")
        valid = value in ("+", "-") if key == "pm" else value.isdigit() if key in ("pgditer", "W", "M") else bool(value)
        if not valid:
            wanted = "+ or -" if key == "pm" else "a whole number" if key in ("pgditer", "W", "M") else "a number"
            raise ValueError(f"{text}: {key} must be {wanted}, got {value!r}.")
        if key in ("eps", "alpha"):
            try:
                value = str(number(value))
            except ValueError as error:
                raise ValueError(f"{text}: {key}: {error}") from error
        found[key] = value
    return found


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
    count: int | None = None,
    eps: float | None = None,
    steps: int | None = None,
    step_size: float | None = None,
    norm: str = "linf",
    schedule: str | None = None,
    random_start: bool = False,
    search: str = "pgd",
    population: int | None = None,
    xi: str | None = None,
) -> Profile:
    """A profile of one attack, called attack-NAME; what is not given follows the attack string, then the default.

    What departs from the default is part of the name (attack-ES-eps8-steps64, eps in 1/255 for linf), so that results
    with another budget are other files.

    Args:
        schedule: "eccv" derives steps and their size from eps, as the code of ECCV 2020 does.
        search: "pgd", or "nes" for a black-box search, whose step size is 3/255 if none is given, whatever a string
            says.
        population: of "nes".
        xi: weight of what SP attacks preserve: "batch", "image" or a fixed number.

    Raises:
        ValueError: for an unknown name or a budget that makes no sense.
    """
    found = named(text, count)
    kind = ATTACKS[found.base].search if found.base in ATTACKS else "pgd"
    usual = default_adversary(shape)
    ball = _ball(norm, eps if eps is not None else found.eps, usual.ball)
    if schedule is not None:
        steps, step_size = _scheduled(schedule, ball, eps if eps is not None else found.eps, steps, step_size, search)
    usual_steps, usual_size = _usual_steps(kind, search, ball, steps if steps is not None else found.steps)
    iterations = steps if steps is not None else found.steps if found.steps is not None else usual_steps
    from_string = found.step_size if search == "pgd" else None
    size = step_size if step_size is not None else usual_size if from_string is None else from_string
    chosen = _search(search, iterations, size, random_start, population, kind)
    name = f"attack-{found.base}" + "-published" * found.published
    name += f"-{found.count}" * (found.count != found.usual_count) + "-l2" * (norm == "l2")
    name += "-nes" * isinstance(chosen, Nes) + f"-population{population}" * (population is not None)
    if ball != usual.ball:
        name += f"-eps{ball.eps:g}" if norm == "l2" else f"-eps{round(255 * ball.eps, 4):g}"
    name += f"-steps{iterations}" * (iterations != usual_steps)
    name += f"-size{round(255 * size, 4):g}" * (size != usual_size) + "-random" * random_start
    name += f"-xi-{xi}" * (xi is not None)
    protocol = "targets as published" if found.published else "corrected targets, drawn without repetition"
    goal = found.goal if xi is None else _with_xi(found.goal, xi)
    measurement = Measurement(found.base, goal, Adversary(ball, chosen))
    batch = 112 if max(shape[1:]) >= LARGE else 128
    return Profile(name, (measurement,), batch, found.published, f"one attack, {protocol}")


def _ball(norm: str, radius: float | None, usual: Ball) -> Ball:
    if norm not in ("linf", "l2"):
        raise ValueError(f"--norm must be linf or l2, got {norm!r}.")
    if norm == "linf":
        return usual if radius is None else Linf(radius)
    if radius is None:
        raise ValueError("no L2 budget is published: give one with --eps, e.g. --norm l2 --eps 0.5")
    return L2(radius)


def _usual_steps(kind: str, search: str, ball: Ball, steps: int | None) -> tuple[int, float]:
    """How many steps an attack takes if nobody says, and of what size in a ball."""
    if kind == "universal":
        usual, size = Universal().steps, Universal().step_size
    else:
        assert isinstance(OTHERS.search, Pgd)
        usual, size = OTHERS.search.steps, OTHERS.search.step_size
    iterations = usual if steps is None else steps
    if isinstance(ball, L2):
        return usual, reach_of_l2(ball.eps, iterations)
    return usual, size if search == "nes" else min(size, ball.eps)


def _scheduled(
    schedule: str, ball: Ball, eps: float | None, steps: int | None, step_size: float | None, search: str
) -> tuple[int, float]:
    if schedule != "eccv":
        raise ValueError(f"--schedule must be eccv, got {schedule!r}.")
    if eps is None or not isinstance(ball, Linf) or search != "pgd":
        raise ValueError("--schedule eccv derives the steps of pgd from a radius of linf: give it with --eps.")
    if steps is not None or step_size is not None:
        raise ValueError("--schedule eccv says steps and step size: leave out --steps and --step-size.")
    found = eccv_schedule(ball.eps)
    return found.steps, found.step_size


def _search(kind: str, steps: int, step_size: float, random_start: bool, population: int | None, usual: str) -> Search:
    if kind not in ("pgd", "nes"):
        raise ValueError(f"--search must be pgd or nes, got {kind!r}.")
    if population is not None and kind != "nes":
        raise ValueError("--population belongs to the black-box search: add --search nes.")
    if random_start and (kind == "nes" or usual == "universal"):
        raise ValueError("--random-start is defined for pgd only, and not for one displacement of many images.")
    if usual != "pgd" and kind == "nes":
        raise ValueError("a universal attack has no black-box form: leave out --search nes.")
    if usual == "universal":
        return Universal(steps, step_size)
    if kind == "nes":
        return Nes(steps, Nes().population if population is None else population, None, step_size)
    return Pgd(steps, step_size, random_start, universal=usual == "averaged")


def _with_xi(goal: Goal, xi: str) -> Goal:
    if not isinstance(goal, (PreservingQuery, PreservingOrder)):
        raise ValueError(f"--xi belongs to the attacks that preserve something (SPQA+, SPQA-, SPFOA), got {goal}.")
    weight: Weight
    if xi in ("batch", "image"):
        weight = DynamicWeight(per="batch" if xi == "batch" else "image")
    else:
        try:
            weight = FixedWeight(number(xi))
        except ValueError as error:
            raise ValueError(f"--xi must be batch, image or a fixed weight >= 0, got {xi!r}.") from error
    return replace(goal, weight=weight)
