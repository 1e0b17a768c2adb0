"""One self-contained HTML page from result files: no request, no script, equal inputs give equal bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from robustdml import __version__
from robustdml.files import write_text
from robustdml.report import glossary, plots, tables
from robustdml.report.facts import count, fields, setup, words
from robustdml.report.paired import paired_differences
from robustdml.report.pictures import pictures
from robustdml.report.published import Published, canonical, published
from robustdml.report.results import read_all
from robustdml.report.run import COMPONENTS, Run, sign
from robustdml.report.tradeoff import tradeoff_plots

Cells = list[str]
UNSCALED = ("cosine", "shift", "score")


def build_report(
    paths: Iterable[Path | str],
    out: Path | str,
    *,
    title: str | None = None,
    reference: bool = True,
    examples: int = 2,
) -> Path:
    """Write the report of the runs behind `paths` to `out`, complete or not at all.

    Args:
        paths: Run folders, scorecards, evaluations or RobRank swipe files.
        out: The HTML file; it is replaced in one step once the page is complete.
        title: Heading of the page; by default it names the runs.
        reference: Whether to add the published rows of the same data sets.
        examples: Attacked images shown per attack and run.

    Raises:
        ResultError: A result file is missing, damaged or too new.
    """
    runs = read_all(paths)
    if not runs:
        raise ValueError("a report needs at least one run folder or result file")
    text = render(runs, title=title, reference=reference, examples=examples)
    write_text(Path(out), text)
    return Path(out)


def render(runs: Sequence[Run], *, title: str | None = None, reference: bool = True, examples: int = 2) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("robustdml.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    attacks = list(dict.fromkeys(name for run in runs for name in run.attacks))
    components = plots.components_plot(runs)
    names = list(dict.fromkeys(run.name for run in runs))
    return environment.from_string(source).render(
        title=title or "Robustness of " + (" and ".join(names) if len(names) < 3 else f"{len(names)} models"),
        runs=[_heading(place, run) for place, run in enumerate(runs)],
        setup=setup(runs),
        scores=_scores(runs),
        attack_scores=_attack_scores(runs, attacks),
        paired=_paired(runs),
        components=components and _drawn(components),
        component_key=[(name, glossary.ATTACKS[name.split(":")[0]], glossary.COMPONENTS[name]) for name in COMPONENTS],
        tradeoff=[_drawn(plot) for plot in tradeoff_plots(runs, _comparable(runs) if reference else ())],
        curves=[_drawn(plot) for plot in plots.curve_plots(runs)],
        curve_note=_curve_note(runs),
        training=[_drawn(plot) for plot in plots.training_plots(runs)],
        pictures=[pictures(run, examples) for run in runs if run.examples is not None and examples > 0],
        trust=[_trust(place, run) for place, run in enumerate(runs)],
        attacks=[(sign(name), glossary.attack_meaning(name) or _what(runs, name)) for name in attacks],
        reference=_reference(runs) if reference else None,
        fields=[(run.label, fields(run)) for run in runs],
        version=__version__,
    )


def _what(runs: Sequence[Run], attack: str) -> str:
    """What a result file says of an attack that is not known here."""
    entries = (run.scorecard.get("attacks", {}).get(attack) or {} for run in runs)
    return next((str(e["what"]) for e in entries if e.get("what")), "")


def _drawn(plot: plots.Plot) -> dict[str, Any]:
    return {"title": plot.title, "svg": Markup(plot.svg), "caption": plot.caption}


def _heading(place: int, run: Run) -> dict[str, Any]:
    colour, _, marker = plots.style(place)
    what = [
        run.dataset,
        run.model,
        tables.with_distance(run.loss, run.distance),
        run.defense and f"defense: {run.defense}",
    ]
    worst = run.worst
    missing = "this profile does not define it" if run.attacks else "no attack was run"
    return {
        "name": run.name,
        "profile": run.profile,
        "colour": colour,
        "marker": marker,
        "what": " · ".join(part for part in what if part),
        "source": run.source,
        "ers": tables.one_decimal(run.ers),
        "ers_interval": _span(run.ers_interval),
        "ers_missing": "" if run.ers is not None else run.ers_undefined or missing,
        "recall": tables.one_decimal(run.clean.get("recall@1"), 100.0),
        "worst": "" if worst is None else tables.one_decimal(worst, 100.0),
        "flags": len(run.flags),
        "failed": sum(not check.get("ok", True) for check in run.checks.values()),
        "checked": bool(run.checks),
        "attacked": bool(run.attacks),
        "unreliable": run.unreliable,
        "white_box": run.white_box,
        "drawn": {
            "components": bool(run.components),
            "tradeoff": run.white_box and (run.ers is not None or worst is not None),
            "curve": bool(run.curve),
            "training": bool(run.log),
        },
    }


def _span(interval: tuple[float, float] | None, scale: float = 1.0) -> str:
    if interval is None:
        return ""
    return " – ".join(tables.one_decimal(end, scale).replace("-", "−") for end in interval)


def _scores(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Clean and robust scores side by side: groups of rows, one cell per run with its interval."""
    clean = list(dict.fromkeys([*glossary.CLEAN, *(key for run in runs for key in run.clean)]))
    groups = [
        (
            "Clean, %",
            [
                _row(
                    runs,
                    glossary.CLEAN.get(key, key),
                    [run.clean.get(key) for run in runs],
                    [_span(run.clean_interval(key), 100.0) for run in runs],
                    100.0,
                    attacked=False,
                )
                for key in clean
            ],
        ),
        (
            "Under attack",
            [
                _row(runs, "ERS", [run.ers for run in runs], [_span(run.ers_interval) for run in runs], strong=True),
                _row(
                    runs,
                    "Recall@1 left by ES, LTM, GTM (and stronger) together, %",
                    [run.worst for run in runs],
                    [_span(run.worst_interval, 100.0) for run in runs],
                    100.0,
                ),
            ],
        ),
        (
            "Components of ERS",
            [
                _row(
                    runs,
                    sign(name),
                    [run.components.get(name) for run in runs],
                    [_span(run.intervals.get(name)) for run in runs],
                )
                for name in COMPONENTS
            ],
        ),
    ]
    kept = [{"name": name, "rows": [row for row in rows if row["known"]]} for name, rows in groups]
    return [group for group in kept if group["rows"]]


def _row(
    runs: Sequence[Run],
    name: str,
    values: Sequence[float | None],
    spans: Sequence[str],
    scale: float = 1.0,
    *,
    strong: bool = False,
    attacked: bool = True,
) -> dict[str, Any]:
    """A row of scores; the highest of several trustworthy runs is marked, unless all are equal.

    Runs are rivals on one data set, under attack if they were attacked alike by somebody who knew the model.
    """
    ranked = [not run.unreliable and (run.white_box or not attacked) for run in runs]
    leagues = [(run.dataset, *((run.profile, run.eps) if attacked else ())) for run in runs]
    rivals: dict[tuple[object, ...], set[float]] = {}
    for league, value, rival in zip(leagues, values, ranked, strict=True):
        if value is not None and rival:
            rivals.setdefault(league, set()).add(value)
    cells = [
        {
            "text": tables.one_decimal(value, scale),
            "span": span,
            "best": rival and value is not None and len(rivals[league]) > 1 and value == max(rivals[league]),
        }
        for rival, league, value, span in zip(ranked, leagues, values, spans, strict=True)
    ]
    return {"name": name, "cells": cells, "known": any(value is not None for value in values), "strong": strong}


def _attack_scores(runs: Sequence[Run], attacks: Sequence[str]) -> list[tuple[str, str, Cells]]:
    """Every score of every attack, before → after, one cell per run."""
    rows = []
    for name in attacks:
        keys = dict.fromkeys(key for run in runs if name in run.attacks for key in run.attacks[name].after)
        for key in keys:
            cells = []
            for run in runs:
                attack = run.attacks.get(name)
                sides = [attack.before.get(key), attack.after.get(key)] if attack else [None, None]
                cells.append(
                    " → ".join(_score(key, side) for side in sides)
                    if any(s is not None for s in sides)
                    else tables.EMPTY
                )
            rows.append((sign(name), glossary.SCORES.get(key, key) + ("" if key in UNSCALED else ", %"), cells))
    return rows


def _score(key: str, value: float | None) -> str:
    if value is None:
        return tables.EMPTY
    return f"{value:.3f}" if key in UNSCALED else f"{100 * value:.1f}"


def _paired(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every further run against the first, where both hold numbers of the same queries."""
    found = []
    for run in runs[1:]:
        rows = paired_differences(runs[0], run)
        if rows:
            lines = [
                (sign(row.name), f"{row.mean:+.1f}", f"{row.low:+.1f} to {row.high:+.1f}", row.clear) for row in rows
            ]
            found.append({"reference": runs[0].label, "other": run.label, "rows": lines})
    return found


def _curve_note(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        if run.curve:
            facts = [f"{count(run.curve['queries'])} queries" if "queries" in run.curve else ""]
            facts += [
                f"{key.replace('_', ' ')} {words(run.curve[key])}"
                for key in ("steps", "step_size_rule", "seed")
                if key in run.curve
            ]
            parts.append(f"{run.label}: {', '.join(fact for fact in facts if fact)}")
    return "; ".join(parts)


def _trust(place: int, run: Run) -> dict[str, Any]:
    """Flags and self-checks in plain words."""
    checks = [
        {
            "ok": bool(check.get("ok", False)),
            "name": name.replace("_", " "),
            "value": words(check.get("value")),
            "message": words(check.get("message")),
            "meaning": glossary.meaning(name),
        }
        for name, check in run.checks.items()
        if isinstance(check, Mapping)
    ]
    flags = [
        {
            "name": words(flag.get("name")).replace("_", " "),
            "message": words(flag.get("message")),
            "meaning": glossary.meaning(words(flag.get("name"))),
        }
        for flag in run.flags
        if isinstance(flag, Mapping)
    ]
    heading = _heading(place, run)
    return {
        **heading,
        "label": run.label,
        "flags": flags,
        "checks": sorted(checks, key=lambda c: c["ok"]),
        "notes": run.notes,
    }


def _comparable(runs: Sequence[Run]) -> list[Published]:
    """Published rows of the data sets of these runs under their distances, the first of each defense."""
    known = {canonical(run.dataset) for run in runs} - {None}
    distances = {run.distance for run in runs}
    rows = published(*sorted(name for name in known if name)) if known else []
    first = {
        (row.dataset, row.model, row.defense, row.steps): row for row in reversed(rows) if row.distance in distances
    }
    return list(first.values())


def _reference(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Published rows of the data sets of these runs, the runs themselves sorted in between."""
    known = {canonical(run.dataset) for run in runs} - {None}
    rows = published(*sorted(name for name in known if name)) if known else []
    if not rows:
        return None
    own = [run for run in runs if run.white_box and canonical(run.dataset) in known]
    texts = ("source", *(("dataset",) if len(known) > 1 else ()), "model", "loss", "defense")
    columns = (*texts, "ERS", *tables.CLEAN_COLUMNS, *COMPONENTS)
    lines = []
    for row in tables.compare_rows(own, rows):
        line = tables.cells(replace(row, ers_interval=None))
        lines.append({"cells": [line[head] for head in columns], "own": not row.published})
    return {"columns": [sign(head) for head in columns], "rows": lines, "count": len(rows), "texts": len(texts)}
