"""The scorecard: everything the per-query numbers of a profile add up to."""

import inspect
import math
from dataclasses import asdict
from typing import Any

import numpy as np

from robustdml.adversary import Adversary
from robustdml.attacks.goals import Goal
from robustdml.attacks.scene import TOP_SHARE
from robustdml.audit import Check
from robustdml.data.images import ImageSet
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Distance
from robustdml.evaluate import Evaluation
from robustdml.profile import Profile
from robustdml.score import COMPONENTS, STRONGER, WORST_CASE, ers, normalised
from robustdml.serial import Json, to_json

SCHEMA = 1
RESAMPLES = 1000
ERS_UNDEFINED = "under this distance the shift is unbounded, so ES:D and with it ERS are undefined"


def component_values(attack: str, after: dict[str, np.ndarray], distance: Distance) -> dict[str, np.ndarray]:
    """The components of ERS that an attack feeds, per query, 0 … 100; no shift where it has no bound."""
    return {
        name: np.asarray(normalised(name, after[c.score] * (100 if c.percent else 1)))
        for name, c in COMPONENTS.items()
        if c.attack == attack and c.score in after and (c.score != "shift" or distance.largest is not None)
    }


def bootstrap(values: np.ndarray, seed: int) -> list[float]:
    """95 % percentile interval of a mean over queries, of values [q] or of several components of it [c, q].

    Queries are resampled whole; each component is averaged over the queries for which it is defined.
    """
    rows = np.atleast_2d(values)
    rows = rows[:, ~np.isnan(rows).all(axis=0)]
    if rows.shape[1] == 0:
        return [math.nan, math.nan]
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(0, rows.shape[1], rows.shape[1]) for _ in range(RESAMPLES))
    means = [_mean_of_means(rows[:, places]) for places in drawn]
    return [float(v) for v in np.nanpercentile(means, [2.5, 97.5])]


def _mean_of_means(rows: np.ndarray) -> float:
    defined = ~np.isnan(rows)
    counts = defined.sum(axis=1)
    if not counts.all():
        return math.nan
    return float((np.where(defined, rows, 0).sum(axis=1) / counts).mean())


def scorecard(
    profile: Profile,
    arrays: dict[str, dict[str, np.ndarray]],
    evaluation: Evaluation,
    checks: list[Check],
    metric: DeepMetric,
    data: ImageSet,
    seed: int,
) -> Json:
    """The content of `benchmark-PROFILE.json`, but for costs in seconds and provenance."""
    attacks: dict[str, Any] = {}
    components: dict[str, np.ndarray] = {}
    for m in profile.measurements:
        own = arrays[m.name]
        after = {n.removeprefix("after/"): v for n, v in own.items() if n.startswith("after/")}
        values = component_values(m.name, after, metric.distance)
        components |= values
        attacks[m.name] = {
            **{when: _means(own, when) for when in ("before", "after", "after_8bit")},
            "component": {name: float(np.nanmean(v)) for name, v in values.items()},
            "interval": {name: bootstrap(v, seed) for name, v in values.items()},
            **adversary_fields(m.adversary),
            **({"surrogate": m.surrogate.path, "energy_gallery": m.energy_gallery} if m.surrogate else {}),
            "what": (inspect.getdoc(type(m.goal)) or "").split("\n\n")[0].replace("\n", " "),
            "perturbs": m.goal.perturbs,
            **head_of(m.goal, evaluation.gallery),
            "goal": to_json(m.goal),
            "units": "prank: percentile rank 0..1; recall and retain: share of queries; cosine; shift: distance",
            "seconds": round(float(own["cost"][2]), 2),
        }
    foreign = {m.surrogate for m in profile.measurements if m.surrogate}
    defined = profile.has_ers and metric.distance.largest is not None
    merged, survived = _merged(checks), _survivors(arrays)
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "profile": profile.name,
        "published_protocol": profile.published,
        "ers": ers({n: float(np.nanmean(v)) for n, v in components.items()}) if defined else None,
        "ers_interval": bootstrap(np.stack([components[n] for n in COMPONENTS]), seed) if defined else None,
        "clean": evaluation.scores,
        "clean_interval": _clean_interval(arrays, seed),
        "attacks": attacks,
        "worst_case_recall@1": None if survived is None else float(np.nanmean(survived)),
        "worst_case_interval": None if survived is None else bootstrap(survived, seed),
        "queries": evaluation.queries,
        "gallery": evaluation.gallery,
        "classes": evaluation.classes,
        "lonely_queries": evaluation.lonely,
        "dataset": data.name,
        "distance": type(metric.distance).__name__,
        "ranks": metric.ranks,
        "embedding": evaluation.embedding,
        "threat_model": threat_model(profile),
        "checks": {c.name: {"ok": c.ok, "value": c.value, "message": c.message} for c in merged},
        "flags": [c.as_flag() for c in merged if not c.ok],
        "unreliable": any(not c.ok for c in merged),
        "cost": {
            "forward": int(sum(own["cost"][0] for own in arrays.values())) + evaluation.gallery * (1 + len(foreign)),
            "backward": int(sum(own["cost"][1] for own in arrays.values())),
        },
        "seed": seed,
    }
    if not defined:
        card["ers_undefined"] = ERS_UNDEFINED if profile.has_ers else "the profile does not measure all ten components"
    return card


def head_of(goal: Goal, gallery: int) -> dict[str, int]:
    """Length of the head of the ranking from which targets are drawn, where that is longer than 1 % of the gallery."""
    wanted = int(getattr(goal, "from_head", 0))
    return {"head": min(wanted, gallery)} if wanted > int(TOP_SHARE * gallery) else {}


def _means(own: dict[str, np.ndarray], when: str) -> dict[str, float]:
    return {n.removeprefix(when + "/"): float(np.nanmean(v)) for n, v in own.items() if n.startswith(when + "/")}


def _merged(checks: list[Check]) -> list[Check]:
    """One check of each name: the worst."""
    by_name: dict[str, Check] = {}
    for check in checks:
        by_name[check.name] = check.worse(by_name[check.name]) if check.name in by_name else check
    return list(by_name.values())


def _survivors(arrays: dict[str, dict[str, np.ndarray]]) -> np.ndarray | None:
    """Per query whether recall@1 survives ES, LTM and corrected GTM all, and the stronger ones; `None` if one of the
    three was not measured.

    Strict profiles attack the corrected target under the name GTM itself, strong ones run each goal several times
    under names such as "ES start 1".
    """
    found = []
    for name in WORST_CASE:
        own = _runs_of(name, arrays) or _runs_of(name.removesuffix("-corrected"), arrays)
        if not own:
            return None
        found += own
    found += [own for name in STRONGER for own in _runs_of(name, arrays)]
    return np.min(found, axis=0)


def _runs_of(goal: str, arrays: dict[str, dict[str, np.ndarray]]) -> list[np.ndarray]:
    return [own["after/recall@1"] for name, own in arrays.items() if name.split(" ")[0] == goal]


def _clean_interval(arrays: dict[str, dict[str, np.ndarray]], seed: int) -> dict[str, list[float]]:
    """That of recall@1, where an attack on queries recorded it before it began."""
    found = [own["before/recall@1"] for own in arrays.values() if "before/recall@1" in own]
    return {"recall@1": bootstrap(found[0], seed)} if found else {}


def threat_model(profile: Profile) -> dict[str, Any]:
    """What the attacker may do and knows; of several budgets only what they share, and how many there are."""
    each = [adversary_fields(m.adversary) for m in profile.measurements]
    shared = {k: v for k, v in each[0].items() if all(k in own and own[k] == v for own in each)}
    knowledge = set()
    for m in profile.measurements:
        kind = "model, gallery and labels (white box)" if m.adversary.search.gradients else "energies alone (black box)"
        knowledge.add(kind if m.surrogate is None else f"another model, {m.surrogate.path} (transfer)")
    return {
        **shared,
        "budgets": len({m.adversary for m in profile.measurements}),
        "perturbs": "one image at a time; the gallery stays clean",
        "knowledge": "; ".join(sorted(knowledge)),
    }


def adversary_fields(adversary: Adversary) -> dict[str, Any]:
    """Norm, radius and search settings of an adversary, for result files."""
    search = asdict(adversary.search)  # type: ignore[call-overload]  # searches are dataclasses
    return {
        "norm": type(adversary.ball).__name__.lower(),
        "eps": adversary.ball.eps,
        "search": type(adversary.search).__name__,
        "gradients": adversary.search.gradients,
        **search,
    }
