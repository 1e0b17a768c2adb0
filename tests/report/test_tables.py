import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from robustdml.report.published import published
from robustdml.report.results import read_runs
from robustdml.report.run import COMPONENTS, Run
from robustdml.report.tables import as_csv, as_markdown, as_text, compare_rows, regressions

MakeRun = Callable[..., Path]


def bare(name: str, ers: float | None, recall: float = 0.5) -> Run:
    return Run(source=name, name=name, clean={"recall@1": recall}, ers=ers)


def test_rows_are_sorted_by_ers_and_undefined_ones_come_last() -> None:
    rows = compare_rows(
        [bare("none", None), bare("low", -4.0), bare("high", 70.0), bare("also none", None, 0.9), bare("zero", 0.0)]
    )
    assert [row.source for row in rows] == ["high", "zero", "low", "also none", "none"]


def test_results_without_gradients_stand_last_marked_and_explained() -> None:
    blind = replace(bare("nes", 90.0), scorecard={"threat_model": {"knowledge": "energies alone (black box)"}})
    rows = compare_rows([blind, bare("low", 4.0), bare("none", None)])
    assert [row.source for row in rows] == ["low", "none", "nes"]
    text = as_text(rows, 250)
    assert "nes ‡" in text
    assert "low ‡" not in text
    assert "not to be ranked" in text
    assert "‡" not in as_text(rows[:2], 250)
    assert [line["white box"] for line in csv.DictReader(io.StringIO(as_csv(rows)))] == ["yes", "yes", "no"]


def test_order_of_paths_does_not_change_the_table() -> None:
    runs = [bare("b", 1.0), bare("a", 1.0), bare("c", None)]
    assert compare_rows(runs) == compare_rows(runs[::-1])


def test_text_fits_the_width_and_keeps_every_column(robust_run: Path) -> None:
    rows = compare_rows(read_runs(robust_run), published("fashion"))
    for width in (80, 100, 250):
        text = as_text(rows, width)
        table = text.split("Percent;")[0]
        assert max(len(line) for line in table.splitlines()) <= width
        assert all(name in table for name in ("R@1", "NMI", *COMPONENTS, "ERS"))
    assert "63.3 [62.5, 64.0]" in as_text(rows, 250)


def test_the_worst_case_has_a_column(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    (line,) = csv.DictReader(io.StringIO(as_csv(compare_rows([run]))))
    assert float(line["worst"]) == pytest.approx(100 * run.scorecard["worst_case_recall@1"])
    assert "worst" in as_text(compare_rows([run]), 250).splitlines()[0]
    weaker = replace(run, scorecard=run.scorecard | {"worst_case_recall@1": 0.0})
    assert [lost.split(":")[0] for lost in regressions(run, weaker, 1.0)] == ["worst"]


def test_published_rows_are_marked_with_their_source(robust_run: Path) -> None:
    rows = compare_rows(read_runs(robust_run), published("fashion"))
    markdown = as_markdown(rows)
    assert "RobRank README †" in markdown
    assert "act-fashion-c2f2 (rob28) |" in markdown.replace("\\", "")
    assert "not measured here" in markdown
    assert "†" not in as_markdown(compare_rows(read_runs(robust_run)))


def test_names_cannot_break_a_table_or_steer_a_terminal() -> None:
    rows = compare_rows([replace(bare("a|b\n<script>\x1b[31m", 1.0), model="m|n")])
    markdown = as_markdown(rows)
    assert len(markdown.splitlines()) == 5
    assert "a\\|b" in markdown
    assert "<script>" not in markdown
    assert "\x1b" not in as_text(rows, 100) + markdown


def test_csv_holds_full_precision_and_the_interval(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    (line,) = csv.DictReader(io.StringIO(as_csv(compare_rows([run]))))
    assert float(line["ERS"]) == pytest.approx(run.ers, rel=1e-9)
    assert float(line["ERS low"]) == pytest.approx(run.ers - 0.8)
    assert float(line["R@1"]) == pytest.approx(78.7)
    assert line["published"] == "no"


def test_a_run_does_not_regress_against_itself(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    assert regressions(run, run, 0.0) == []


def test_losses_beyond_the_tolerance_are_listed_and_smaller_ones_are_not(plain_run: Path, robust_run: Path) -> None:
    (plain,), (robust,) = read_runs(plain_run), read_runs(robust_run)
    lost = regressions(robust, plain, 1.0)
    assert any(line.startswith("ERS: 63.3 before, 4.2 now (-59.1") for line in lost)
    assert not any(line.startswith("R@1") for line in lost)
    assert [line.split(":")[0] for line in regressions(plain, robust, 9.5)] == []
    assert "R@1" in [line.split(":")[0] for line in regressions(plain, robust, 8.0)]


def test_a_missing_score_and_a_new_flag_are_regressions(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    poorer = replace(run, ers=None, scorecard={**run.scorecard, "flags": [{"name": "collapse", "message": "rank 1.0"}]})
    assert regressions(run, poorer, 5.0) == ["ERS: 63.3 before, missing now", "flag collapse: rank 1.0"]


def test_different_profiles_are_not_compared(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    with pytest.raises(ValueError, match=r"scored with profile rob28, .* with rob224"):
        regressions(run, replace(run, profile="rob224"), 1.0)
    with pytest.raises(ValueError, match="zero or more"):
        regressions(run, run, -1.0)
