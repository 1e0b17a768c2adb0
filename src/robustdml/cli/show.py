"""Result files as tables for people."""

import math
from itertools import groupby
from pathlib import Path

from robustdml.cli.terminal import both_ways, table
from robustdml.report.glossary import CLEAN
from robustdml.score import COMPONENTS, STRONGER
from robustdml.serial import Json

UNSCALED = ("cosine", "shift", "tau")


def evaluation(value: Json, remarks: list[str], file: Path) -> list[str]:
    """Clean scores."""
    scores = [[CLEAN.get(name, name), _percent(score)] for name, score in value["clean"].items()]
    return [_heading(value), *table(["clean", "%"], scores), *_remarks(remarks), f"written: {file}"]


def scorecard(card: Json, remarks: list[str], file: Path) -> list[str]:
    """A scorecard: ERS, every attack before and after, flags."""
    rows = []
    for name, attack in card["attacks"].items():
        parts = attack["component"]
        keys = [k for k in attack["after"] if k != "shift"] or ["shift"]
        shown = [("shift" if c == "ES:D" else keys[0], c) for c in parts] or [(key, "") for key in keys]
        for place, (key, component) in enumerate(shown):
            rows.append(
                [
                    name if place == 0 else "",
                    attack["perturbs"] if place == 0 else "",
                    key,
                    _score(key, attack["before"].get(key)),
                    _score(key, attack["after"].get(key)),
                    component,
                    _one(parts.get(component)),
                    _span(attack["interval"].get(component)),
                ]
            )
    threat = card["threat_model"]
    kinds = ("accuracy",) if card["ranks"] == "classes" else ("recall@1", "map", "nmi", "accuracy")
    clean = ", ".join(f"{CLEAN.get(k, k)} {_percent(v)}" for k, v in card["clean"].items() if k in kinds)
    head = [
        _heading(card),
        f"profile {card['profile']}: {_threat(threat)}",
        f"clean, %: {clean}",
    ]
    columns = ["attack", "perturbs", "score", "before", "after", "component", "0…100", "95 % interval"]
    score = [f"ERS {_one(card['ers'])} {_span(card['ers_interval'])}"] if card.get("ers") is not None else []
    if "ers_undefined" in card and {c.attack for c in COMPONENTS.values()} <= set(card["attacks"]):
        score.append(f"no ERS: {card['ers_undefined']}")
    if card.get("worst_case_recall@1") is not None:
        attacks = ", ".join(["ES", "LTM", *(name for name in STRONGER if name in card["attacks"])])
        score.append(f"recall@1 that survives {attacks} and GTM together: {_percent(card['worst_case_recall@1'])} %")
    flags = [f"unreliable: {flag['name']}: {flag['message']}" for flag in card["flags"]]
    return [*head, *table(columns, rows, left=3), *score, *flags, *_remarks(remarks), f"written: {file}"]


def _threat(threat: Json) -> str:
    """Budget and search in words."""
    if "eps" not in threat:
        return f"{threat['budgets']} budgets, see the names (eps in 1/255); {threat['knowledge']}"
    norm = threat.get("norm")
    radius = f"{norm or 'several norms,'} eps {both_ways(threat['eps'], norm or 'l2')}"
    return f"{radius}, {threat.get('search', 'several searches')}, {_effort(threat, norm or 'l2')}"


def _effort(threat: Json, norm: str) -> str:
    if "searches" in threat:
        return f"up to {threat['gradients']} steps"
    size = both_ways(threat["step_size"], norm) if "step_size" in threat else "–"
    return f"{threat.get('steps', '–')} steps of {size}"


def plan(value: Json) -> list[str]:
    """What a command would cost."""
    units = {
        "memory_mib": "memory, about MiB",
        "forward": "forward passes (images)",
        "backward": "backward passes (images)",
    }
    rows = [[units.get(k, k.replace("_", " ")), _plain(v)] for k, v in value.items() if k not in ("recipe", "profile")]
    recipe = _tree("recipe", value["recipe"], 0) if "recipe" in value else _budgets(value, set())
    return ["plan; nothing was run", *recipe, *table(["", ""], rows, left=2)[1:]]


def _tree(key: str, value: Json, depth: int) -> list[str]:
    """A component, its settings on one line and the components inside it below, further in."""
    plain, inner = [], []
    for name, v in value.items():
        if isinstance(v, dict) and "type" in v:
            inner += _tree(name, v, depth + 1)
        elif isinstance(v, dict) and v and all(isinstance(u, dict) for u in v.values()):
            inner += [line for own, u in v.items() for line in _tree(f"{name}.{own}", u, depth + 1)]
        elif name != "type":
            plain.append(f"{name} {_setting(name, v)}")
    kind = value.get("type", "")
    return [f"{'  ' * depth}{key}: {kind}" + (f" ({', '.join(plain)})" if plain else ""), *inner]


def _setting(name: str, value: Json) -> str:
    if name == "eps":
        return both_ways(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value) if value or value == 0 else "none"


def _budgets(value: object, said: set[str]) -> list[str]:
    """Every ball in a recipe or profile, its radius both ways."""
    if isinstance(value, list):
        return [line for inner in value for line in _budgets(inner, said)]
    if not isinstance(value, dict):
        return []
    found = [line for inner in value.values() for line in _budgets(inner, said)]
    if {"ball", "search"} <= value.keys():
        ball, search = value["ball"], value["search"]
        norm = ball["type"].lower()
        each = [word for one in search.get("searches", [search]) if (word := _search(one, norm))]
        runs = [(word, len(list(alike))) for word, alike in groupby(each)]
        effort = ", then ".join(word if count == 1 else f"{count} times {word}" for word, count in runs)
        line = f"adversary: {norm} eps {both_ways(ball['eps'], norm)}, {search['type']}" + (effort and f", {effort}")
        found += [] if line in said else [line]
        said.add(line)
    return found


def _search(search: Json, norm: str) -> str:
    size = f" of {both_ways(search['step_size'], norm)}" if "step_size" in search else ""
    start = " from a random start" if search.get("random_start") else ""
    return f"{search['steps']} steps{size}{start}" if "steps" in search else ""


def training(value: Json) -> list[str]:
    """What became of a training run."""
    return [f"trained {value['recipe']} in {value['run']}", f"next: robustdml benchmark {value['run']}"]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "known once the data are there" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _heading(value: Json) -> str:
    return (
        f"{value.get('name', 'model')} on {value['dataset']}: {value['queries']} queries, "
        f"gallery of {value['gallery']} in {value['classes']} classes, distance {value['distance']}"
    )


def _remarks(remarks: list[str]) -> list[str]:
    return [f"note: {remark}" for remark in remarks]


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _one(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def _score(key: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if key in UNSCALED else _percent(value)


def _span(span: list[float] | None) -> str:
    return f"[{_one(span[0])}, {_one(span[1])}]" if span else ""


_STATES = {"complete": "complete", "missing": "missing", "damaged": "found, but it cannot be used"}


def data(found: Json) -> list[str]:
    """Where a data set was looked for, and what is there."""
    places = [
        f"  {p['path']}: {', '.join(p['holds']) or 'empty' if p['exists'] else 'not there'}" for p in found["looked_in"]
    ]
    state, problem = _STATES[found["state"]], [found["problem"]]
    if found["complete"]:
        counts = ", ".join(f"{n} {role}" for role, n in found["images"].items())
        state += f": {counts} images of {found['classes']} classes, shape {found['shape']}"
        problem = [found["note"]] if found["note"] else []
    expected = (
        [f"published: {', '.join(f'{n} {role}' for role, n in found['expected'].items())}"] if found["expected"] else []
    )
    return [f"{found['name']}: {state}", *expected, "looked in:" if places else "needs no files", *places, *problem]


def diagnosis(value: Json, out: Path) -> list[str]:
    """How defenses change the gradients of triplets."""
    asked = value["diagnosis"]
    adversary = _budgets(asked, set())
    head = [
        f"{value.get('name', 'model')} on {value['dataset']}: {asked['triplets']} triplets of training images",
        *adversary,
        f"cosines between clean and moved gradients ({asked['normalisation']}); efficiency is the gain of hardness",
    ]
    rows = []
    for name, statistics in value["statistics"].items():
        for place, (statistic, s) in enumerate(statistics.items()):
            low, middle, high = s["quartiles"]
            rows.append(
                [
                    name if place == 0 else "",
                    f"gradient to the {statistic}" if statistic != "efficiency" else "batch efficiency",
                    f"{s['mean']:.3f}",
                    f"{s['sd']:.3f}",
                    f"{low:.3f}",
                    f"{middle:.3f}",
                    f"{high:.3f}",
                    _percent(s["below_zero"]),
                ]
            )
    columns = ["defense", "statistic", "mean", "sd", "25 %", "median", "75 %", "below 0, %"]
    files = ", ".join(str(out / f"diagnosis.{suffix}") for suffix in ("json", "npz", "png", "svg"))
    return [*head, *table(columns, rows, left=2), f"written: {files}"]
