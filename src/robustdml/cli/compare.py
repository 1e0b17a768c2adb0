"""robustdml compare: a table of runs, and whether one lost against another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from robustdml.cli import failures, terminal
from robustdml.cli.options import Common, Fraction, read

EXAMPLES = (
    "runs/plain-fashion-c2f2 runs/act-fashion-c2f2 --published",
    "reference/benchmark-rob28.json runs/new --tolerance 1.0",
    "runs/act-fashion-c2f2 --format markdown",
)


@dataclass(kw_only=True)
class Options(Common):
    """A table of runs sorted by ERS. With two paths and --tolerance, exit 1 if the second lost against the first."""

    paths: Positional[tuple[Path, ...]]
    """run folders, scorecards, evaluations or RobRank swipe files"""
    tolerance: Fraction = None
    """points (of 100) that a score may fall before it is a regression"""
    published: bool = False
    """add the published rows of the same data sets, marked"""
    format: Literal["text", "markdown", "csv"] = "text"
    """of the table"""


def main(argv: list[str]) -> int:
    """Parse, compare, print."""
    options, _ = read(Options, argv, "compare", EXAMPLES)
    if not options.paths:
        raise failures.UsageError("compare needs at least one run folder or result file, e.g. robustdml compare runs/*")
    if options.tolerance is not None and len(options.paths) != 2:
        raise failures.UsageError(f"--tolerance compares two paths, the reference first; got {len(options.paths)}.")
    from robustdml.report import tables
    from robustdml.report.comparison import lost, rows_of, rows_to_json

    rows = rows_of(options.paths, published=options.published)
    found = [] if options.tolerance is None else lost(options.paths[0], options.paths[1], options.tolerance)
    if options.json:
        terminal.document({"rows": rows_to_json(rows), "regressions": found})
    else:
        made = {"text": tables.as_text, "markdown": tables.as_markdown, "csv": tables.as_csv}[options.format](rows)
        terminal.lines([made.rstrip("\n"), *(f"regression: {sentence}" for sentence in found)])
    return failures.FAILED if found else 0
