"""The Empirical Robustness Score: how ten outcomes of attacks become one number (arXiv:2106.03614)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Number = TypeVar("Number", float, Any)


@dataclass(frozen=True)
class Component:
    """One of the ten numbers that ERS averages.

    Attributes:
        attack: name of the measurement it comes from.
        score: name of its score there.
        percent: whether tables print the score times 100.
        normalise: the score as tables print it -> 0 (worst) … 100 (best); not clipped.
    """

    attack: str
    score: str
    percent: bool
    normalise: Callable[[Any], Any]


COMPONENTS: dict[str, Component] = {
    "CA+": Component("CA+", "prank", True, lambda raw: 2 * raw),
    "CA-": Component("CA-", "prank", True, lambda raw: 100 - raw),
    "QA+": Component("QA+", "prank", True, lambda raw: 2 * raw),
    "QA-": Component("QA-", "prank", True, lambda raw: 100 - raw),
    "TMA": Component("TMA", "cosine", False, lambda raw: 100 * (1 - raw)),
    "ES:D": Component("ES", "shift", False, lambda raw: 100 * (2 - raw) / 2),
    "ES:R": Component("ES", "recall@1", True, lambda raw: raw),
    "LTM": Component("LTM", "recall@1", True, lambda raw: raw),
    "GTM": Component("GTM", "recall@1", True, lambda raw: raw),
    "GTT": Component("GTT", "retain@4", True, lambda raw: raw),
}
"""The ten components in the order of the published tables (arXiv:2106.03614)."""

WORST_CASE = ("ES", "LTM", "GTM-corrected")
"""A query's recall@1 survives if it survives all of these."""

STRONGER = ("LTM-nearest", "leave-class")
"""And these, where they were measured: strong profiles run them."""


def normalised(name: str, raw: Number) -> Number:
    """A component in 0 … 100 from the number a table prints: percentile ranks and recalls in percent."""
    return COMPONENTS[name].normalise(raw)


def ers(components: Mapping[str, float | int]) -> float:
    """The Empirical Robustness Score, the mean of the ten components.

    Raises:
        ValueError: if one is missing: a mean of fewer is not ERS.
    """
    missing = [name for name in COMPONENTS if name not in components]
    if missing:
        raise ValueError(f"ERS needs all ten components, {', '.join(missing)} missing. Use a rob… profile.")
    return sum(components[name] for name in COMPONENTS) / len(COMPONENTS)
