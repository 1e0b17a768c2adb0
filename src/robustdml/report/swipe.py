"""RobRank's swipe files: {attack string: [before, after]}, turned into the ten components and ERS.

Units of these files: percentile ranks and the recalls of LTM, GTM and GTT are fractions, recall of ES is a percentage.
They hold neither data set, model, loss nor distance, and nothing is guessed from the file name.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustdml.report.run import ATTACKS, UNDEFINED_EUCLIDEAN, AttackResult, ResultError, Run, mean_score, normalised

SCORES = {
    "CA+": {"CA+:prank": "prank"},
    "CA-": {"CA-:prank": "prank"},
    "QA+": {"QA+:prank": "prank"},
    "QA-": {"QA-:prank": "prank"},
    "SPQA+": {"SPQA+:prank": "prank", "SPQA+:GTprank": "preserved_prank"},
    "SPQA-": {"SPQA-:prank": "prank", "SPQA-:GTprank": "preserved_prank"},
    "TMA": {"Cosine-SIM": "cosine"},
    "ES": {"embshift": "shift", "r@1": "recall@1"},
    "LTM": {"r@1": "recall@1"},
    "GTM": {"r@1": "recall@1"},
    "GTT": {"retain@4": "retain@4"},
}
"""Attack -> upstream score -> our name of it."""
BLACK_BOX = (
    "Made by the black-box search (-nes): RobRank divides its embedding shift by the population instead of the batch, "
    "so that ES:D, and with it ERS, is off by their ratio."
)
"""What RobRank's NES mode does to one component."""
PERTURBED_CANDIDATE = ("CA+", "CA-")
KEYS = {"eps": float, "alpha": float, "pgditer": int, "W": int, "M": int}


def is_swipe(value: dict[str, Any]) -> bool:
    """Whether a JSON object maps attack strings to [before, after] pairs."""
    return bool(value) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, dict) for side in pair)
        for pair in value.values()
    )


def parse_attack(text: str) -> tuple[str, dict[str, float | int]]:
    """Name with its sign and settings of an attack string such as `CA:pm=+:W=1:eps=0.30196:alpha=0.011764:pgditer=32`.

    Raises:
        ValueError: The string does not follow the grammar.
    """
    name, *parts = text.split(":")
    settings: dict[str, float | int] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key == "pm" and value in ("+", "-"):
            name += value
        elif key in KEYS and value:
            settings[key] = KEYS[key](value)
        else:
            raise ValueError(f"cannot read {part!r} in {text!r}; keys are pm, {', '.join(KEYS)}")
    if name not in SCORES:
        raise ValueError(f"unknown attack {name!r} in {text!r}; known: {', '.join(SCORES)}")
    return name, settings


def read_swipe(value: dict[str, Any], file: Path) -> Run:
    """A run from a swipe file. ERS is defined when each of the nine attacks occurs exactly once.

    Raises:
        ResultError: An attack string or a score is not what RobRank writes.
    """
    parsed = {}
    again = "repeat the swipe with RobRank, or `robustdml benchmark CHECKPOINT --profile rob28`"
    for text, (before, after) in value.items():
        try:
            name, settings = parse_attack(text)
            parsed[text] = (name, settings, _scores(name, before, before=True), _scores(name, after, before=False))
        except (ValueError, KeyError, TypeError) as error:
            raise ResultError(file, f"{text!r}: {error}", "RobRank attack strings with their scores", again) from error
    names = [name for name, *_ in parsed.values()]
    complete = sorted(names) == sorted(ATTACKS)
    attacks = {
        name if complete else text: AttackResult(
            before,
            after,
            _components(name, after) if complete else {},
            {},
            {
                **{
                    ours: settings[theirs]
                    for ours, theirs in (("eps", "eps"), ("step_size", "alpha"))
                    if theirs in settings
                },
                **({"steps": settings["pgditer"]} if "pgditer" in settings else {}),
                "norm": "linf",
                "perturbs": "candidate" if name in PERTURBED_CANDIDATE else "query",
            },
        )
        for text, (name, settings, before, after) in parsed.items()
    }
    run = Run(
        source=file.name,
        name=file.stem,
        clean={"recall@1": attacks["ES"].before["recall@1"]} if complete and "recall@1" in attacks["ES"].before else {},
        attacks=attacks,
        notes=(
            "Read from a RobRank swipe file, which records neither data set, model, distance, seed nor sample size.",
            *([BLACK_BOX] if file.name.endswith("-nes.json") else []),
        ),
    )
    if not complete:
        return _undefined(run, "the file does not hold each of the nine attacks of ERS exactly once")
    if attacks["ES"].after["shift"] > 2 + 1e-6:
        attacks["ES"].components.pop("ES:D")
        return _undefined(run, UNDEFINED_EUCLIDEAN)
    return replace(run, ers=mean_score(run.components))


def _undefined(run: Run, reason: str) -> Run:
    return replace(run, ers_undefined=reason)


def _scores(name: str, side: dict[str, Any], *, before: bool) -> dict[str, float]:
    """Scores under our names, as fractions; the shift exists only after the attack."""
    scores = {}
    for theirs, ours in SCORES[name].items():
        if before and theirs == "embshift":
            scores[ours] = 0.0
            continue
        number = float(side[theirs]) / (100 if name == "ES" and theirs == "r@1" else 1)
        if not math.isfinite(number):
            raise ValueError(f"{theirs} is {number}")
        if ours not in ("cosine", "shift") and not 0 <= number <= 1:
            raise ValueError(f"{theirs} = {side[theirs]} is outside its range")
        scores[ours] = number
    return scores


def _components(name: str, after: dict[str, float]) -> dict[str, float]:
    if name == "ES":
        return normalised({"ES:D": after["shift"], "ES:R": 100 * after["recall@1"]})
    if name == "TMA":
        return normalised({"TMA": after["cosine"]})
    return normalised({name: 100 * next(iter(after.values()))})
