"""robustdml doctor: is this installation healthy?"""

from dataclasses import dataclass

from robustdml.cli import failures, terminal
from robustdml.cli.options import Common, File, read

EXAMPLES = ("", "--json")


@dataclass(kw_only=True)
class Options(Common):
    """Versions, devices, optional extras, torchvision, data sets, writable cache. Exit 1 if there is a problem."""

    data_root: File = None
    """folder in which data sets are looked for first"""


def main(argv: list[str]) -> int:
    """Parse, examine, print."""
    options, _ = read(Options, argv, "doctor", EXAMPLES)
    from robustdml.doctor import examine

    found = examine(options.data_root)
    if options.json:
        terminal.document(found)
    else:
        apart = ("problems", "notes", "packages", "devices", "datasets")
        rows = [[key, _said(value)] for key, value in found.items() if key not in apart]
        rows += [[name, _said(value)] for part in ("packages", "devices") for name, value in found[part].items()]
        rows += [["data sets", ""]] + [
            [f"  {n}", d["where"] if d["present"] else "not there"] for n, d in found["datasets"].items()
        ]
        problems = [f"problem: {problem}" for problem in found["problems"]] or ["no problems found"]
        notes = [f"note: {note}" for note in found["notes"]]
        terminal.lines([*terminal.table(["", ""], rows, left=2)[1:], *notes, *problems])
    return failures.FAILED if found["problems"] else 0


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return (
        {True: "yes", False: "no", None: "–"}.get(value, str(value))
        if isinstance(value, (bool, type(None)))
        else str(value)
    )
