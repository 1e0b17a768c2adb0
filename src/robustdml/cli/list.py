"""robustdml list: everything that has a name."""

from dataclasses import dataclass

from tyro.conf import Positional

from robustdml.cli import terminal
from robustdml.cli.options import Common, read

EXAMPLES = ("recipes", "recipes --bibtex", "losses", "defenses --json", "attacks", "papers")


@dataclass(kw_only=True)
class Options(Common):
    """Names with one line each, and parameters with type and default; plug-ins of installed packages included."""

    noun: Positional[str]
    """recipes, losses, miners, distances, models, datasets, defenses, attacks, profiles, metrics, searches, balls,
    papers"""
    bibtex: bool = False
    """of recipes and papers: the publications as BibTeX"""


def main(argv: list[str]) -> int:
    """Parse, look up, print."""
    options, _ = read(Options, argv, "list", EXAMPLES)
    from robustdml.catalogue import entries
    from robustdml.recipes.papers import bibtex

    found = entries(options.noun)
    if options.json:
        terminal.document([entry.as_json() for entry in found])
    elif options.bibtex or options.noun == "papers":
        terminal.lines([bibtex([entry.paper for entry in found])])
    else:
        for entry in found:
            paper = f" [{entry.paper}]" if entry.paper else ""
            settings = ", ".join(f"{p['name']}: {p['type']} = {p['default']}" for p in entry.parameters)
            terminal.lines([f"{entry.name}{paper}: {entry.line}", *([f"    {settings}"] if settings else [])])
    return 0
