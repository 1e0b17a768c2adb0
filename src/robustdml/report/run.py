"""What one run says about itself: scores, settings and pictures as plain records, and the arithmetic of ERS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdml import score

COMPONENTS = tuple(score.COMPONENTS)
"""The ten ingredients of ERS, in the order of the published tables."""
ATTACKS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES", "LTM", "GTM", "GTT")
CLEAN = ("accuracy", "recall@1", "recall@2", "map", "map_at_r", "map_at_10", "r_precision", "nmi")
UNDEFINED_EUCLIDEAN = "the Euclidean shift is unbounded, so ES:D and with it ERS are undefined"


class ResultError(ValueError):
    """A result file that cannot be used: which, what was found, what is accepted and what to type next."""

    def __init__(self, file: Path, found: str, accepted: str, next_command: str) -> None:
        super().__init__(f"{file}: {found}. Accepted: {accepted}. Next: {next_command}")


@dataclass(frozen=True)
class AttackResult:
    """One attack of a scorecard.

    Attributes:
        before: Named scores on clean images, fractions in [0, 1] except `cosine` in [-1, 1] and `shift` >= 0.
        after: The same scores on the attacked images.
        components: ERS components fed by this attack, 0…100.
        intervals: 95 % interval of each component.
        settings: Every other field of the file (eps, step_size, steps, norm, perturbs, seconds, …).
    """

    before: dict[str, float]
    after: dict[str, float]
    components: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Pictures of one attack: rows of `Examples.images`, and the attacked image as float32 [e h w c] in [0, 1].

    `before` and `after` [e 5] are the nearest gallery items of the attacked image without its own copy; -1 means none.
    """

    query: NDArray[np.int64]
    adversarial: NDArray[np.float32]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    target: NDArray[np.int64]
    perturbs: str


@dataclass(frozen=True)
class Examples:
    """Images of one profile: uint8 [m h w c] with gallery index and label, and what each attack did to some of them."""

    eps: float
    images: NDArray[np.uint8]
    image_index: NDArray[np.int64]
    image_label: NDArray[np.int64]
    class_names: tuple[str, ...]
    attacks: dict[str, Example]


@dataclass(frozen=True)
class Run:
    """What the result files of a run say about one profile (`profile` is empty when only clean scores exist).

    Attributes:
        clean: Clean scores, fractions in [0, 1].
        ers: 0…100, or None with the reason in `ers_undefined`.
        scorecard: The scorecard, the evaluation or both as read, unknown fields included.
        curve: `curve-PROFILE.json` as read.
        per_query: Arrays of `benchmark-PROFILE.npz`, named `ATTACK/before/SCORE` and `ATTACK/after/SCORE`, [q] each.
        notes: What a reader of the report must know about the files themselves.
    """

    source: str
    name: str
    dataset: str = ""
    model: str = ""
    loss: str = ""
    defense: str = ""
    distance: str = ""
    profile: str = ""
    clean: dict[str, float] = field(default_factory=dict)
    attacks: dict[str, AttackResult] = field(default_factory=dict)
    ers: float | None = None
    ers_interval: tuple[float, float] | None = None
    ers_undefined: str = ""
    scorecard: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    log: tuple[dict[str, Any], ...] = ()
    curve: dict[str, Any] | None = None
    examples: Examples | None = None
    per_query: dict[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> dict[str, float]:
        """The ERS components this run has, in the published order."""
        found = {name: value for attack in self.attacks.values() for name, value in attack.components.items()}
        return {name: found[name] for name in COMPONENTS if name in found}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each ERS component that has one."""
        found = {name: value for attack in self.attacks.values() for name, value in attack.intervals.items()}
        return {name: found[name] for name in COMPONENTS if name in found}

    @property
    def white_box(self) -> bool:
        """Whether the attacker knew the model: attacks without it bound its robustness from above only."""
        knowledge = str((self.scorecard.get("threat_model") or {}).get("knowledge", ""))
        return "(black box)" not in knowledge and "(transfer)" not in knowledge

    @property
    def eps(self) -> float | None:
        """Radius of the perturbations, where all attacks have one."""
        value = (self.scorecard.get("threat_model") or {}).get("eps")
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def weights(self) -> str | None:
        """Digest of the weights, in results that name it."""
        return self.provenance.get("weights")

    @property
    def worst(self) -> float | None:
        """Share of queries whose recall@1 survives ES, LTM, corrected GTM and stronger attacks all, in [0, 1]."""
        value = self.scorecard.get("worst_case_recall@1")
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def worst_interval(self) -> tuple[float, float] | None:
        """95 % interval of `worst`, in results that hold one."""
        return _pair(self.scorecard.get("worst_case_interval"))

    def clean_interval(self, name: str) -> tuple[float, float] | None:
        """95 % interval of a clean score, in [0, 1], in results that hold one."""
        return _pair((self.scorecard.get("clean_interval") or {}).get(name))

    @property
    def flags(self) -> list[dict[str, Any]]:
        """Reasons not to rely on the scores, as stored by the benchmark: `name` and `message` each."""
        return list(self.scorecard.get("flags") or [])

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Self-checks of the benchmark: name -> `ok`, `value`, `message`."""
        return dict(self.scorecard.get("checks") or {})

    @property
    def unreliable(self) -> bool:
        """Whether a flag is raised or a self-check failed."""
        return bool(self.flags) or any(not check.get("ok", True) for check in self.checks.values())

    @property
    def label(self) -> str:
        """Name and profile, short enough for a table heading."""
        return f"{self.name} ({self.profile})" if self.profile else self.name


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, named by their folder where one name stands for different weights or twice for one profile."""

    def alike(a: Run, b: Run) -> bool:
        return a.source != b.source and a.name == b.name and (a.profile == b.profile or a.weights != b.weights)

    return [replace(run, name=run.source) if any(alike(run, other) for other in runs) else run for run in runs]


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if isinstance(value, (list, tuple)) and len(value) == 2 else None


def normalised(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Components in 0 … 100 from numbers as tables print them: percent, except the cosine of TMA and the shift of ES:D.

    Values may be arrays; components that `raw` lacks are left out.
    """
    return {name: score.normalised(name, raw[name]) for name in COMPONENTS if name in raw}


def mean_score(components: Mapping[str, float | int]) -> float | None:
    """ERS, or None if a component is missing."""
    if any(name not in components for name in COMPONENTS):
        return None
    return score.ers(components)


def sign(name: str) -> str:
    """An attack or component name with a typographic minus."""
    return name.replace("-", "−") if name.endswith("-") else name
