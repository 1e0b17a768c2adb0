from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustdml.report.paired import paired_differences
from robustdml.report.results import read_runs

MakeRun = Callable[..., Path]


def test_the_mean_is_the_mean_of_the_differences(plain_run: Path, robust_run: Path) -> None:
    (plain,), (robust,) = read_runs(plain_run), read_runs(robust_run)
    found = {row.name: row for row in paired_differences(plain, robust)}
    expected = 100 * 2 * (robust.per_query["CA+/after/prank"] - plain.per_query["CA+/after/prank"]).mean()
    assert found["CA+"].mean == pytest.approx(expected)
    assert found["ERS"].mean == pytest.approx(np.mean([row.mean for name, row in found.items() if name != "ERS"]))
    assert all(row.low - 1e-9 <= row.mean <= row.high + 1e-9 for row in found.values())
    assert found["ERS"].clear


def test_a_run_does_not_differ_from_itself(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    assert all((row.mean, row.low, row.high) == (0, 0, 0) and not row.clear for row in paired_differences(run, run))


def test_other_queries_data_or_profiles_are_not_paired(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    moved = replace(run, per_query={**run.per_query, "queries": run.per_query["queries"] + 1})
    assert paired_differences(run, moved) == []
    assert paired_differences(run, replace(run, profile="other")) == []
    assert paired_differences(run, replace(run, dataset="other")) == []
    assert paired_differences(run, replace(run, per_query={})) == []
