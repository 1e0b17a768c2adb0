"""The rows that `robustdml compare` shows, and what one path lost against another."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustdml.report.published import canonical, published
from robustdml.report.results import read_all, read_runs
from robustdml.report.tables import Row, compare_rows, regressions


def rows_of(paths: Sequence[Path], *, published: bool = False) -> list[Row]:
    """All runs behind some paths, sorted by ERS, with the published rows of their data sets if wanted.

    Raises:
        ResultError: if a result file is missing, damaged or too new.
    """
    runs = read_all(paths)
    known = sorted({name for run in runs if (name := canonical(run.dataset))})
    return compare_rows(runs, _published(known) if published else ())


def _published(names: list[str]) -> list[Any]:
    return list(published(*names)) if names else []


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain objects."""
    return [asdict(row) for row in rows]


def lost(reference: Path, candidate: Path, tolerance: float) -> list[str]:
    """What the runs of one path lost against those of another, profile by profile; see `tables.regressions`.

    Raises:
        ResultError: if a result file is missing, damaged or too new.
        ValueError: if the two were attacked under different profiles, or the tolerance is negative.
    """
    before, after = ({run.profile: run for run in read_runs(path)} for path in (reference, candidate))
    if len(before) == 1 and len(after) == 1:
        return regressions(next(iter(before.values())), next(iter(after.values())), tolerance)
    found = [f"profile {name}: measured before, missing now" for name in before if name not in after]
    shared = [name for name in before if name in after]
    return found + [sentence for name in shared for sentence in regressions(before[name], after[name], tolerance)]
