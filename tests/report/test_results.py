import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustdml.report.results import read_all, read_runs
from robustdml.report.run import COMPONENTS, ResultError, mean_score, normalised

MakeRun = Callable[..., Path]


def test_normalised_scores_follow_the_published_definition() -> None:
    perfect = {
        "CA+": 50,
        "CA-": 0,
        "QA+": 50,
        "QA-": 0,
        "TMA": 0,
        "ES:D": 0,
        "ES:R": 100,
        "LTM": 100,
        "GTM": 100,
        "GTT": 100,
    }
    helpless = {
        "CA+": 0,
        "CA-": 100,
        "QA+": 0,
        "QA-": 100,
        "TMA": 1,
        "ES:D": 2,
        "ES:R": 0,
        "LTM": 0,
        "GTM": 0,
        "GTT": 0,
    }
    assert mean_score(normalised(perfect)) == 100
    assert mean_score(normalised(helpless)) == 0


def test_components_outside_their_range_are_not_clipped() -> None:
    assert normalised({"CA+": 60.0, "TMA": -0.2}) == {"CA+": 120.0, "TMA": 120.0}


def test_ers_of_fewer_than_ten_components_is_undefined() -> None:
    assert mean_score(dict.fromkeys(COMPONENTS[:9], 50.0)) is None


def test_a_run_folder_gives_everything_it_holds(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    assert (run.name, run.profile, run.dataset, run.loss) == ("act-fashion-c2f2", "rob28", "fashion", "Triplet")
    assert tuple(run.components) == COMPONENTS
    assert run.ers == pytest.approx(mean_score(run.components))
    assert run.clean["r_precision"] == pytest.approx(0.697)
    assert run.examples is not None
    assert run.curve is not None
    assert run.log[0]["step"] == 0
    assert run.scorecard["a_field_of_tomorrow"] == {"kept": True}


def test_the_corrected_attack_is_read_but_is_no_ingredient_of_ers(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    assert "GTM-corrected" in run.attacks
    assert "GTM-corrected" not in run.components


def test_every_profile_of_a_folder_is_a_run_of_its_own(robust_run: Path) -> None:
    card = json.loads((robust_run / "benchmark-rob28.json").read_text())
    (robust_run / "benchmark-rob28-strict.json").write_text(json.dumps({**card, "profile": "rob28-strict"}))
    runs = read_runs(robust_run)
    assert {run.profile for run in runs} == {"rob28", "rob28-strict"}
    assert [run.curve is not None for run in runs if run.profile == "rob28"] == [True]
    assert [run.curve is not None for run in runs if run.profile == "rob28-strict"] == [False]


def test_clean_scores_are_those_of_the_whole_test_set_where_it_was_evaluated(robust_run: Path) -> None:
    card = json.loads((robust_run / "benchmark-rob28.json").read_text())
    card["clean"]["recall@1"], card["clean_interval"] = 0.25, {"recall@1": [0.2, 0.3]}
    card["provenance"] = {"weights": "a"}
    (robust_run / "benchmark-rob28.json").write_text(json.dumps(card))
    evaluation = {"schema": 1, "clean": {"recall@1": 0.5}, "clean_interval": {"recall@1": [0.49, 0.51]}}
    for weights, recall, interval in (("a", 0.5, (0.49, 0.51)), ("b", 0.25, (0.2, 0.3))):
        whole = evaluation | {"provenance": {"weights": weights}}
        (robust_run / "evaluation.json").write_text(json.dumps(whole))
        (run,) = read_runs(robust_run)
        assert run.clean["recall@1"] == recall
        assert run.clean_interval("recall@1") == interval


def test_runs_of_one_recipe_are_told_apart_by_their_folders(make_run: MakeRun) -> None:
    paths = [make_run(name, name="act") for name in ("first", "second")]
    assert [run.name for run in read_all(paths)] == ["first", "second"]
    assert [run.name for run in read_all(paths[:1] * 2)] == ["act", "act"]


def test_clean_scores_alone_are_a_run(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"schema": 1, "clean": {"recall@1": 0.5}}))
    (run,) = read_runs(tmp_path)
    assert run.clean == {"recall@1": 0.5}
    assert run.ers is None
    assert not run.attacks


def test_identity_missing_from_the_scorecard_comes_from_the_recipe(make_run: MakeRun) -> None:
    folder = make_run("nameless", dataset=None, loss=None)
    (run,) = read_runs(folder)
    assert (run.name, run.dataset, run.loss) == ("nameless", "Fashion", "Triplet")


def test_a_bare_number_is_accepted_where_names_are_usual(tmp_path: Path) -> None:
    attack = {"before": 0.5, "after": 0.1, "component": 20.0, "interval": [19.0, 21.0]}
    file = tmp_path / "card.json"
    file.write_text(json.dumps({"schema": 1, "clean": {"recall@1": 0.9}, "attacks": {"CA+": attack}}))
    (run,) = read_runs(file)
    assert run.components == {"CA+": 20.0}
    assert run.intervals == {"CA+": (19.0, 21.0)}
    assert run.attacks["CA+"].after == {"score": 0.1}


def test_an_ers_that_contradicts_its_components_is_noted(make_run: MakeRun) -> None:
    (run,) = read_runs(make_run("odd", ers=99.0))
    assert any("its ten components average" in note for note in run.notes)


def test_an_euclidean_run_keeps_its_reason(make_run: MakeRun) -> None:
    (run,) = read_runs(make_run("euclidean", ers=None, ers_interval=None, ers_undefined="Euclidean shift is unbounded"))
    assert run.ers is None
    assert run.ers_undefined == "Euclidean shift is unbounded"


def test_a_truncated_scorecard_is_refused_with_the_next_command(robust_run: Path) -> None:
    file = robust_run / "benchmark-rob28.json"
    file.write_text(file.read_text()[:200])
    with pytest.raises(ResultError, match=r"benchmark-rob28\.json: not valid JSON .* Next: robustdml benchmark"):
        read_runs(robust_run)


def test_a_newer_schema_is_refused_with_the_version_that_reads_it(robust_run: Path) -> None:
    file = robust_run / "benchmark-rob28.json"
    card = {**json.loads(file.read_text()), "schema": 2, "provenance": {"versions": {"robustdml": "7.1.0"}}}
    file.write_text(json.dumps(card))
    with pytest.raises(
        ResultError, match=r"schema 2, written by robustdml 7\.1\.0.*pip install --upgrade 'robustdml>=7\.1\.0'"
    ):
        read_runs(robust_run)


def test_a_folder_without_results_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no result in this folder.*evaluation\.json.*robustdml evaluate"):
        read_runs(tmp_path)


def test_a_path_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no such file"):
        read_runs(tmp_path / "nowhere.json")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"colour": "red"}')
    with pytest.raises(ResultError, match="an object with the keys colour"):
        read_runs(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("[1, 2]")
    with pytest.raises(ResultError, match="a JSON list"):
        read_runs(tmp_path / "y.json")


def test_missing_companions_are_no_error_and_a_missing_npz_is_noted(robust_run: Path) -> None:
    for file in robust_run.iterdir():
        if file.name != "benchmark-rob28.json":
            file.unlink()
    (run,) = read_runs(robust_run)
    assert run.examples is None
    assert run.per_query == {}
    assert any("benchmark-rob28.npz is missing" in note for note in run.notes)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip"])
def test_a_damaged_npz_is_refused(robust_run: Path, content: bytes) -> None:
    (robust_run / "examples-rob28.npz").write_bytes(content)
    with pytest.raises(ResultError, match=r"examples-rob28\.npz: not a readable"):
        read_runs(robust_run)


def test_a_pickle_inside_an_npz_is_never_loaded(robust_run: Path) -> None:
    np.savez(robust_run / "benchmark-rob28.npz", queries=np.array([{}], dtype=object))
    with pytest.raises(ResultError, match="not a readable"):
        read_runs(robust_run)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", np.zeros((3, 8, 8, 1), np.float32), "uint8"),
        ("ES/before", np.full((3, 5), 99), "points at row 99"),
        ("ES/adversarial", np.zeros((3, 8, 8, 1), np.float32), "ES/adversarial"),
        ("ES/target", np.zeros(2, int), "different lengths"),
    ],
)
def test_pictures_that_do_not_fit_together_are_refused(
    robust_run: Path, key: str, value: np.ndarray, message: str
) -> None:
    file = robust_run / "examples-rob28.npz"
    with np.load(file) as arrays:
        np.savez(file, **{**arrays, key: value})
    with pytest.raises(ResultError, match=message):
        read_runs(robust_run)


def test_a_missing_array_is_named(robust_run: Path) -> None:
    file = robust_run / "examples-rob28.npz"
    with np.load(file) as arrays:
        np.savez(file, **{key: arrays[key] for key in arrays.files if key != "ES/after"})
    with pytest.raises(ResultError, match="no array 'ES/after'"):
        read_runs(robust_run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ers": float("nan")}, "ers is nan"),
        ({"ers": "high"}, "ers is 'high'"),
        ({"ers_interval": [1]}, "two numbers"),
        ({"clean": {"recall@1": 87.6}}, r"a fraction in \[0, 1\]"),
        ({"attacks": []}, None),
        ({"attacks": [1]}, "`attacks` is a list"),
        ({"attacks": {"ES": 3}}, "before and after"),
        ({"flags": {"a": 1}}, "`flags` is a dict"),
        ({"schema": "one"}, "schema 'one'"),
    ],
)
def test_values_are_checked_once_when_read(make_run: MakeRun, change: dict, message: str | None) -> None:
    folder = make_run("changed", **change)
    if message is None:
        assert not read_runs(folder)[0].attacks
    else:
        with pytest.raises(ResultError, match=message):
            read_runs(folder)


def test_robust_scores_without_clean_ones_are_refused(make_run: MakeRun) -> None:
    folder = make_run("unclean", clean={})
    (folder / "evaluation.json").unlink()
    with pytest.raises(ResultError, match="robust scores without clean ones"):
        read_runs(folder)


def test_a_curve_with_too_few_values_is_refused(robust_run: Path) -> None:
    file = robust_run / "curve-rob28.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps({**card, "ers": card["ers"][:-1]}))
    with pytest.raises(ResultError, match="one value per budget"):
        read_runs(robust_run)


def test_a_curve_with_few_budgets_is_noted(robust_run: Path) -> None:
    (robust_run / "curve-rob28.json").write_text(json.dumps({"schema": 1, "eps": [0, 0.1], "ers": [90, 1]}))
    assert any("2 budgets" in note for note in read_runs(robust_run)[0].notes)


def test_the_cut_last_line_of_a_log_is_dropped_and_said(robust_run: Path) -> None:
    file = robust_run / "log.jsonl"
    whole = len(read_runs(robust_run)[0].log)
    file.write_text(file.read_text() + '{"step": 9, "lo')
    (run,) = read_runs(robust_run)
    assert len(run.log) == whole
    assert any("incomplete" in note for note in run.notes)


def test_damage_inside_a_log_is_refused_with_its_line(robust_run: Path) -> None:
    (robust_run / "log.jsonl").write_text('{"step": 1}\nnoise\n{"step": 2}\n')
    with pytest.raises(ResultError, match="line 2 is not JSON"):
        read_runs(robust_run)
