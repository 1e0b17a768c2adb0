"""Two Markdown tables with a row per run: clean scores, ERS, strict ERS and worst cases, and the ten components.

The files are those of `robustdml evaluate` and of `robustdml benchmark` with PROFILE, PROFILE-strict and the strong
profile of the same radius (rob28: strong28). Rows come in the order given; a dash is what no file holds. An interval is
at 95 %; "worst" is the recall@1 that the attacks on it of the profile together leave.

    python benchmarks/full_table.py docs/results/plain-fashion-c2f2 docs/results/act-fashion-c2f2-quick
    python benchmarks/full_table.py docs/results/*cifar100* --profile rob32
"""

import argparse
from pathlib import Path

from robustdml.report.results import read_runs
from robustdml.report.run import COMPONENTS, ResultError, Run
from robustdml.report.tables import CLEAN_COLUMNS, EMPTY, cells, one_decimal, row_of_run

SUMMARY = ("run", *CLEAN_COLUMNS, "ERS", "strict ERS", "worst", "strict worst", "strong worst", "queries")
PARTS = ("run", "profile", *COMPONENTS)


def row(folder: Path, profile: str) -> dict[str, str]:
    """The printed cells of one run.

    Raises:
        ResultError: if a result file is missing, damaged or too new.
    """
    runs = {run.profile: run for run in read_runs(folder)}
    main, strict, strong = (runs.get(p) for p in (profile, f"{profile}-strict", profile.replace("rob", "strong")))
    queries = [f"{run.scorecard['queries']:,}" for run in (main, strict, strong) if run is not None]
    return cells(row_of_run(main or next(iter(runs.values())))) | {
        "run": folder.name,
        "profile": EMPTY if main is None else profile,
        "strict ERS": EMPTY if strict is None else cells(row_of_run(strict))["ERS"],
        "worst": worst(main),
        "strict worst": worst(strict),
        "strong worst": worst(strong),
        "queries": " / ".join(dict.fromkeys(queries)) or EMPTY,
    }


def worst(run: Run | None) -> str:
    """Worst-case recall@1 in percent with its interval."""
    if run is None or run.worst is None:
        return EMPTY
    ends = f" [{', '.join(one_decimal(end, 100) for end in run.worst_interval)}]" if run.worst_interval else ""
    return one_decimal(run.worst, 100) + ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--profile", default="rob28", help="whose components are shown: rob28, rob32 or rob224")
    options = parser.parse_args()
    try:
        rows = [row(folder, options.profile) for folder in options.runs]
    except ResultError as error:
        parser.error(str(error))
    for heads in (SUMMARY, PARTS):
        for line in (heads, ("---", *("--:" for _ in heads[1:])), *([each[head] for head in heads] for each in rows)):
            print(f"| {' | '.join(line)} |")
        print()


if __name__ == "__main__":
    main()
