"""robustdml demo: the whole story on the embedded digits."""

from dataclasses import dataclass
from pathlib import Path

from robustdml.cli import terminal
from robustdml.cli.options import Common, read
from robustdml.command import COMMAND
from robustdml.interruption import Interrupted

EXAMPLES = ("", "--out /tmp/demo")


@dataclass(kw_only=True)
class Options(Common):
    """Train a plain and a robust model on built-in digits, attack both, write a report. No network, three minutes."""

    out: Path = Path("runs/demo")
    """folder of runs and report"""
    seed: int = 0
    """of queries and attack targets"""


def main(argv: list[str]) -> int:
    """Parse, run, print."""
    options, _ = read(Options, argv, "demo", EXAMPLES)
    from robustdml.demo import demo

    try:
        with terminal.Progress(options.quiet) as progress:
            cards = demo(options.out, seed=options.seed, report=progress.line, progress=progress)
    except Interrupted as stop:
        raise Interrupted(COMMAND.get()) from stop
    rows = [
        [name, f"{100 * card['clean']['recall@1']:.1f}", f"{card['ers']:.1f}", "yes" if card["unreliable"] else "no"]
        for name, card in cards.items()
    ]
    page = options.out / "report.html"
    table = terminal.table(["model", "recall@1, %", "ERS", "flagged"], rows)
    terminal.document(cards) if options.json else terminal.lines([*table, f"open the report: {page}"])
    return 0
