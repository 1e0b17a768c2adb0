"""Differences between two runs on the same queries, with a paired bootstrap interval.

Per-query numbers come from `benchmark-PROFILE.npz`: `queries` [q] holds gallery indices, `ATTACK/after/SCORE` [q] one
number per query (ranks and recalls as fractions).
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdml.report.run import COMPONENTS, Run, normalised

SCORE_OF = {
    "CA+": ("CA+", "prank"),
    "CA-": ("CA-", "prank"),
    "QA+": ("QA+", "prank"),
    "QA-": ("QA-", "prank"),
    "TMA": ("TMA", "cosine"),
    "ES:D": ("ES", "shift"),
    "ES:R": ("ES", "recall@1"),
    "LTM": ("LTM", "recall@1"),
    "GTM": ("GTM", "recall@1"),
    "GTT": ("GTT", "retain@4"),
}
"""Component -> attack and score it is made from."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """Mean of `other - reference` over the queries of both, in points, with its 95 % interval."""

    name: str
    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_differences(reference: Run, other: Run) -> list[Difference]:
    """Components and ERS, where both runs hold per-query numbers for the same queries; empty otherwise.

    The bootstrap draws queries, the same for every score, from a seed that depends on the queries alone.
    """
    a, b = reference.per_query, other.per_query
    if (
        "queries" not in a
        or "queries" not in b
        or not len(a["queries"])
        or not np.array_equal(a["queries"], b["queries"])
    ):
        return []
    if reference.profile != other.profile or reference.dataset != other.dataset:
        return []
    size = len(a["queries"])
    seed = zlib.crc32(np.ascontiguousarray(a["queries"], dtype=np.int64).tobytes())
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES) / size
    deltas: dict[str, NDArray[Any]] = {}
    for name in COMPONENTS:
        x, y = _per_query(a, name, size), _per_query(b, name, size)
        if x is not None and y is not None:
            deltas[name] = y - x
    defined = reference.ers is not None and other.ers is not None
    if len(deltas) == len(COMPONENTS) and defined:
        deltas["ERS"] = np.mean(list(deltas.values()), axis=0)
    differences = []
    for name, delta in deltas.items():
        low, high = np.quantile(weights @ delta, [0.025, 0.975])
        differences.append(Difference(name, float(delta.mean()), float(low), float(high)))
    return differences


def _per_query(arrays: dict[str, NDArray[Any]], name: str, size: int) -> NDArray[Any] | None:
    """The component of every query, None where the file does not hold it."""
    attack, score = SCORE_OF[name]
    values = arrays.get(f"{attack}/after/{score}")
    if values is None or values.shape != (size,):
        return None
    raw = values.astype(np.float64) * (1 if score in ("cosine", "shift") else 100)
    return np.asarray(normalised({name: raw})[name])
