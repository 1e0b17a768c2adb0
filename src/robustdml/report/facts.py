"""Who was measured and how: the facts of a run in words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from robustdml.report.run import Run, sign

NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}
PERTURBED = {"query": "the query", "candidate": "the candidate", "both": "query and candidate"}
UNKNOWN = "–"


def setup(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Who was measured and how: one row per fact, one cell per run; facts that no run records are left out."""
    facts: dict[str, Any] = {
        "Data set": lambda run: run.dataset,
        "Model": lambda run: run.model,
        "Loss": lambda run: run.loss,
        "Distance": lambda run: run.distance,
        "Defense": lambda run: run.defense,
        "Profile of attacks": lambda run: run.profile,
        "Budget ε": _budget,
        "Attack steps": _steps,
        "What is changed": _perturbed,
        "What the attacker knows": lambda run: words(_threat(run, "knowledge")),
        "Queries": lambda run: count(run.scorecard.get("queries")),
        "Gallery": lambda run: count(run.scorecard.get("gallery")),
        "Classes": lambda run: count(run.scorecard.get("classes")),
        "Seed": lambda run: words(run.scorecard.get("seed", run.provenance.get("seed"))),
        "Versions": lambda run: words(run.provenance.get("versions")),
        "Device": lambda run: words(run.provenance.get("device")),
        "Cost": _cost,
        "Command": lambda run: words(run.provenance.get("command"), " "),
    }
    rows = [(label, [fact(run) for run in runs]) for label, fact in facts.items()]
    return [(label, [cell or UNKNOWN for cell in cells]) for label, cells in rows if any(cells)]


def _threat(run: Run, key: str) -> Any:
    """A field of the threat model; where only attacks state it, the one value they share."""
    model = run.scorecard.get("threat_model")
    if isinstance(model, dict) and model.get(key) is not None:
        return model[key]
    shared = {json.dumps(attack.settings[key]) for attack in run.attacks.values() if key in attack.settings}
    return json.loads(shared.pop()) if len(shared) == 1 else None


def _budget(run: Run) -> str:
    eps, norm = _threat(run, "eps"), str(_threat(run, "norm") or "")
    return (
        f"{both_ways(eps)} {f'({NORMS.get(norm, norm)})' if norm else ''}".strip()
        if isinstance(eps, (int, float))
        else ""
    )


def _steps(run: Run) -> str:
    steps, size = _threat(run, "steps"), _threat(run, "step_size")
    if steps is None:
        most = _threat(run, "gradients") if _threat(run, "searches") else None
        return "" if most is None else f"up to {count(most)}"
    return f"{words(steps)} of {both_ways(size)}" if isinstance(size, (int, float)) else words(steps)


def _perturbed(run: Run) -> str:
    """Which image is changed, by attack where attacks differ."""
    groups: dict[str, list[str]] = {}
    for name, attack in run.attacks.items():
        if attack.settings.get("perturbs"):
            groups.setdefault(str(attack.settings["perturbs"]), []).append(sign(name))
    if len(groups) > 1:
        return "; ".join(f"{PERTURBED.get(who, who)} ({', '.join(names)})" for who, names in groups.items())
    who = _threat(run, "perturbs")
    return PERTURBED.get(who, who) if isinstance(who, str) else words(who)


def _cost(run: Run) -> str:
    cost = run.scorecard.get("cost")
    if not isinstance(cost, dict):
        return ""
    parts = [f"{count(cost[key])} {key} passes" for key in ("forward", "backward") if cost.get(key) is not None]
    if isinstance(cost.get("seconds"), (int, float)):
        parts.append(f"{cost['seconds']:,.0f} s".replace(",", "\N{NARROW NO-BREAK SPACE}"))
    return ", ".join(parts)


def count(value: Any) -> str:
    """A whole number in groups of three digits."""
    return (
        f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if isinstance(value, (int, float)) else words(value)
    )


def words(value: Any, glue: str = ", ") -> str:
    """A recorded value in words: `torch 2.9, numpy 2.1` rather than braces."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return glue.join(f"{key} {words(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return glue.join(words(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def both_ways(value: float | int) -> str:
    """A budget as a fraction of 255 and as a number: `77/255 = 0.302`."""
    steps = value * 255
    if abs(steps - round(steps)) < 0.01:
        return f"{round(steps)}/255 = {value:.3g}" if value else "0"
    return f"{value:.3g} = {steps:.2f}/255"


def fields(run: Run) -> list[tuple[str, str]]:
    """Everything recorded that the page does not show elsewhere, fields of later versions included."""
    shown = ("attacks", "clean", "flags", "checks", "provenance")
    card = {key: value for key, value in run.scorecard.items() if key not in shown}
    return _flat({"recipe": run.recipe, "provenance": run.provenance, "scorecard": card})


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as dotted names, sorted."""
    if isinstance(value, Mapping):
        return [
            pair
            for key in sorted(value, key=str)
            for pair in _flat(value[key], f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, words(value))]
