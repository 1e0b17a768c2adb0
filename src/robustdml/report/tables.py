"""The compare table as text, Markdown and CSV, and the list of regressions between two runs."""

import csv
import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustdml.report.published import Published
from robustdml.report.run import COMPONENTS, Run

CLEAN_COLUMNS = {"R@1": "recall@1", "R@2": "recall@2", "mAP": "map", "NMI": "nmi"}
IDENTITY = ("dataset", "model", "loss", "defense")
MARK = "†"
EMPTY = "–"
ATTACKED = ("ε", "queries")
COLUMNS = (*IDENTITY, *CLEAN_COLUMNS, *COMPONENTS, "ERS", "worst", *ATTACKED, "source")
SCORE_COLUMNS = ("ERS", "ERS low", "ERS high", "worst")
NOTE = (
    "Percent; components and ERS run from 0 to 100, higher is more robust, and ERS is the mean of the ten components. "
    "worst: recall@1 that ES, LTM and GTM together leave, in strong profiles all attacks. Clean scores are of the "
    "whole test set where it was evaluated, those under attack of `queries`. A nearly collapsed model can score well "
    "in ERS without finding anything: read it beside R@1."
)
PUBLISHED_NOTE = f"{MARK} published by its authors, not measured here."
BLACK_BOX_MARK = "‡"
BLACK_BOX_NOTE = (
    f"{BLACK_BOX_MARK} attacked without the gradients of the model (queries or another model): its robustness is at "
    "most that; such rows stand last and are not to be ranked with the others."
)


@dataclass(frozen=True)
class Row:
    """One line of the compare table. Clean scores and the worst case are fractions, components and ERS 0…100."""

    dataset: str
    model: str
    loss: str
    defense: str
    clean: dict[str, float]
    components: dict[str, float]
    ers: float | None
    ers_interval: tuple[float, float] | None
    source: str
    published: bool = False
    worst: float | None = None
    white_box: bool = True
    eps: float | None = None
    queries: int | None = None


def with_distance(loss: str, distance: str) -> str:
    """The loss with the distance it works in, said once."""
    return loss if not distance or distance in loss else f"{loss} ({distance})".strip()


def row_of_run(run: Run) -> Row:
    """A run as a table row."""
    loss = with_distance(run.loss, run.distance)
    identity = (run.dataset, run.model, loss, run.defense)
    scores = (run.clean, run.components, run.ers, run.ers_interval)
    attacked = run.scorecard.get("queries") if run.attacks else None
    return Row(*identity, *scores, run.label, worst=run.worst, white_box=run.white_box, eps=run.eps, queries=attacked)


def row_of_published(row: Published) -> Row:
    """A published figure as a table row."""
    loss = with_distance(row.loss, row.distance)
    defense = row.defense if row.steps is None else f"{row.defense}, {row.steps} steps"
    source = f"{row.source}, ERS recomputed" if row.ers_recomputed else row.source
    return Row(row.dataset, row.model, loss, defense, row.clean, row.components, row.ers, None, source, published=True)


def compare_rows(runs: Iterable[Run], published: Iterable[Published] = ()) -> list[Row]:
    """Rows sorted by ERS, highest first; undefined last, then by recall@1 and by name; black-box results after all."""
    rows = [row_of_run(run) for run in runs] + [row_of_published(row) for row in published]
    return sorted(
        rows,
        key=lambda row: (
            not row.white_box,
            row.ers is None,
            -(row.ers or 0.0),
            -row.clean.get("recall@1", 0.0),
            row.published,
            row.dataset,
            row.defense,
            row.source,
        ),
    )


def cells(row: Row) -> dict[str, str]:
    """The printed text of each column: one decimal, a dash for what is unknown."""
    clean = {head: one_decimal(row.clean.get(key), 100.0) for head, key in CLEAN_COLUMNS.items()}
    components = {name: one_decimal(row.components.get(name)) for name in COMPONENTS}
    ers = one_decimal(row.ers)
    if row.ers_interval is not None and row.ers is not None:
        ers += f" [{row.ers_interval[0]:.1f}, {row.ers_interval[1]:.1f}]"
    identity = {name: printable(str(getattr(row, name))) or EMPTY for name in IDENTITY}
    return {
        **identity,
        **clean,
        **components,
        "ERS": ers,
        "worst": one_decimal(row.worst, 100.0),
        "ε": EMPTY if row.eps is None else f"{255 * row.eps:.3g}/255",
        "queries": EMPTY if row.queries is None else f"{row.queries:,}",
        "source": printable(row.source) + f" {MARK}" * row.published + f" {BLACK_BOX_MARK}" * (not row.white_box),
    }


def one_decimal(value: float | int | None, scale: float | int = 1) -> str:
    """`value * scale` with one decimal, a dash for None; never a negative zero."""
    return EMPTY if value is None else f"{value * scale + 0.0:.1f}".replace("-0.0", "0.0")


def printable(text: str) -> str:
    """Text without control characters, so that a name cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def as_text(rows: Sequence[Row], width: int | None = None) -> str:
    """Aligned columns that fit `width` characters (default: the terminal); the rest continues in a block below.

    Rows carry a number in each block, and texts are cut with an ellipsis; Markdown and CSV hold them whole.
    """
    if width is None:  # a file or a pipe has no width
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000
    table = [cells(row) for row in rows]
    longest = 20 if width < 200 else 32 if width < 1000 else 99
    blocks: list[list[str]] = [[]]
    widths = {
        head: min(
            max([len(head), *(len(line[head]) for line in table)]),
            max(32, longest) if head == "source" else longest if head in IDENTITY else 99,
        )
        for head in COLUMNS
    }
    first = len(str(len(rows)))
    order = (
        (*IDENTITY, "R@1", "ERS", "worst", "R@2", "mAP", "NMI", *COMPONENTS, *ATTACKED, "source")
        if width < 200
        else COLUMNS
    )
    used = first
    for head in order:
        if used + 2 + widths[head] > width and blocks[-1]:
            blocks.append([])
            used = first
        blocks[-1].append(head)
        used += 2 + widths[head]
    text = []
    for block in blocks:
        lines = [("#", {head: head for head in block}), *((str(n), line) for n, line in enumerate(table, start=1))]
        for number, line in lines:
            parts = [number.rjust(first)]
            for head in block:
                cut = line[head] if len(line[head]) <= widths[head] else line[head][: widths[head] - 1] + "…"
                parts.append(cut.ljust(widths[head]) if head in (*IDENTITY, "source") else cut.rjust(widths[head]))
            text.append("  ".join(parts).rstrip())
        text.append("")
    return "\n".join([*text, *_notes(rows)]) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; names cannot break out of their cell."""

    def escaped(text: str) -> str:
        for letter in ("\\", "|", "`", "<", ">", "*", "_", "[", "]"):
            text = text.replace(letter, "\\" + letter if letter not in "<>" else {"<": "&lt;", ">": "&gt;"}[letter])
        return text

    lines = ["| " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + "|".join("---" if head in (*IDENTITY, "source") else "--:" for head in COLUMNS) + "|")
    for row in rows:
        line = cells(row)
        lines.append(
            "| " + " | ".join(escaped(line[h]) if h in (*IDENTITY, "source") else line[h] for h in COLUMNS) + " |"
        )
    return "\n".join([*lines, "", *_notes(rows)]) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """CSV with full precision, percent as in the other tables; the interval of ERS has its own two columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [*IDENTITY, *CLEAN_COLUMNS, *COMPONENTS, *SCORE_COLUMNS, *ATTACKED, "source", "published", "white box"]
    )

    def number(value: float | None, scale: float = 1.0) -> str:
        return "" if value is None else f"{value * scale:.10g}"

    for row in rows:
        low, high = row.ers_interval or (None, None)
        writer.writerow(
            [
                *(getattr(row, name) for name in IDENTITY),
                *(number(row.clean.get(key), 100.0) for key in CLEAN_COLUMNS.values()),
                *(number(row.components.get(name)) for name in COMPONENTS),
                *(number(value) for value in (row.ers, low, high)),
                number(row.worst, 100.0),
                number(row.eps),
                "" if row.queries is None else row.queries,
                row.source,
                "yes" if row.published else "no",
                "yes" if row.white_box else "no",
            ]
        )
    return out.getvalue()


def _notes(rows: Sequence[Row]) -> list[str]:
    published, black_box = any(row.published for row in rows), any(not row.white_box for row in rows)
    return [NOTE, *[PUBLISHED_NOTE] * published, *[BLACK_BOX_NOTE] * black_box]


def regressions(reference: Run, candidate: Run, tolerance: float | int) -> list[str]:
    """What `candidate` lost against `reference`: one sentence per score that fell by more than `tolerance` points.

    Clean scores are compared in percent, components and ERS on their 0…100 scale. A score that the candidate no longer
    has, and a flag that the reference does not carry, count as regressions too.

    Raises:
        ValueError: The tolerance is negative, or the two runs were attacked under different profiles.
    """
    if not tolerance >= 0:
        raise ValueError(f"the tolerance is a number of points, zero or more, got {tolerance}")
    if reference.profile and candidate.profile and reference.profile != candidate.profile:
        raise ValueError(
            f"{reference.name} was scored with profile {reference.profile}, {candidate.name} with {candidate.profile}: "
            f"not comparable. Benchmark {candidate.source} with --profile {reference.profile}."
        )
    before, after = _points(reference), _points(candidate)
    lost = []
    for name, old in before.items():
        if name not in after:
            lost.append(f"{name}: {old:.1f} before, missing now")
        elif old - after[name] > tolerance + 1e-9:
            lost.append(
                f"{name}: {old:.1f} before, {after[name]:.1f} now ({after[name] - old:+.1f}, tolerance {tolerance:g})"
            )
    known = {str(flag.get("name")) for flag in reference.flags}
    return lost + [
        f"flag {flag.get('name')}: {flag.get('message', '')}"
        for flag in candidate.flags
        if str(flag.get("name")) not in known
    ]


def _points(run: Run) -> dict[str, float]:
    clean = {head: 100 * run.clean[key] for head, key in CLEAN_COLUMNS.items() if key in run.clean}
    whole = {"ERS": run.ers, "worst": None if run.worst is None else 100 * run.worst}
    return {**clean, **run.components, **{name: value for name, value in whole.items() if value is not None}}
