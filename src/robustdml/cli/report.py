"""robustdml report: one page from result files."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from robustdml.cli import terminal
from robustdml.cli.failures import UsageError
from robustdml.cli.options import Common, Word, read

EXAMPLES = ("runs/act-fashion-c2f2", "runs/plain-fashion-c2f2 runs/act-fashion-c2f2 --out both.html")


@dataclass(kw_only=True)
class Options(Common):
    """One self-contained HTML page from result files alone; no model is loaded."""

    paths: Positional[tuple[Path, ...]]
    """run folders, scorecards, evaluations or RobRank swipe files"""
    out: Path = Path("report.html")
    """the page"""
    title: Word = None
    """heading; by default the names of the runs"""
    examples: int = 2
    """attacked images shown per attack and run"""
    no_reference: bool = False
    """leave the published figures of the same data sets out"""


def main(argv: list[str]) -> int:
    """Parse, build the page, print where it is."""
    options, _ = read(Options, argv, "report", EXAMPLES)
    if not options.paths:
        raise UsageError(
            "report needs at least one run folder or result file, e.g. robustdml report runs/act-fashion-c2f2"
        )
    from robustdml.report.page import build_report

    page = build_report(
        options.paths, options.out, title=options.title, reference=not options.no_reference, examples=options.examples
    )
    terminal.document({"report": str(page)}) if options.json else terminal.lines([f"written: {page}"])
    return 0
