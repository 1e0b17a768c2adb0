import json
from pathlib import Path
from typing import Any

import pytest

from robustdml.report.results import read_runs
from robustdml.report.run import ResultError
from robustdml.report.swipe import parse_attack

TAIL = "eps=0.30196:alpha=0.011764:pgditer=32"


def swipe(shift: float = 0.541) -> dict[str, Any]:
    """The published Fashion row of ACT in the form and units RobRank writes."""

    def pair(key: str, before: float, after: float) -> list[dict[str, float]]:
        return [{key: before, "loss": 0.5}, {key: after, "loss": 0.1, "embshift": 0.4}]

    return {
        f"CA:pm=+:W=1:{TAIL}": pair("CA+:prank", 0.497, 0.336),
        f"CA:pm=-:W=1:{TAIL}": pair("CA-:prank", 0.012, 0.146),
        f"QA:pm=+:M=1:{TAIL}": pair("QA+:prank", 0.5, 0.385),
        f"QA:pm=-:M=1:{TAIL}": pair("QA-:prank", 0.005, 0.121),
        f"TMA:{TAIL}": pair("Cosine-SIM", 0.02, 0.259),
        f"ES:{TAIL}": [
            {"r@1": 78.7, "r@10": 95.0, "loss": 0.0},
            {"r@1": 48.5, "r@10": 80.0, "loss": -60.0, "embshift": shift},
        ],
        f"LTM:{TAIL}": pair("r@1", 0.787, 0.595),
        f"GTM:{TAIL}": pair("r@1", 0.787, 0.602),
        f"GTT:{TAIL}": [
            {"ID-Retain@1": 1.0, "retain@4": 1.0},
            {"ID-Retain@1": 0.0, "retain@4": 0.001, "embshift": 0.4},
        ],
    }


def read(tmp_path: Path, value: Any) -> Any:
    file = tmp_path / "epoch=7.rob28.json"
    file.write_text(json.dumps(value))
    (run,) = read_runs(file)
    return run


def test_components_and_ers_are_those_of_the_published_row(tmp_path: Path) -> None:
    run = read(tmp_path, swipe())
    assert run.ers == pytest.approx(63.3, abs=0.05)
    assert run.components["CA+"] == pytest.approx(67.2)
    assert run.components["ES:R"] == pytest.approx(48.5)
    assert run.components["LTM"] == pytest.approx(59.5)
    assert run.clean == {"recall@1": pytest.approx(0.787)}


def test_settings_come_from_the_attack_string(tmp_path: Path) -> None:
    settings = read(tmp_path, swipe()).attacks["CA+"].settings
    assert settings == {"eps": 0.30196, "step_size": 0.011764, "steps": 32, "norm": "linf", "perturbs": "candidate"}


def test_an_unbounded_shift_leaves_ers_undefined(tmp_path: Path) -> None:
    run = read(tmp_path, swipe(shift=9.3))
    assert run.ers is None
    assert "Euclidean" in run.ers_undefined
    assert len(run.components) == 9


def test_a_file_without_the_nine_attacks_has_no_ers(tmp_path: Path) -> None:
    part = {key: value for key, value in swipe().items() if not key.startswith("GTT")}
    run = read(tmp_path, part)
    assert run.ers is None
    assert "nine attacks" in run.ers_undefined
    assert f"ES:{TAIL}" in run.attacks


@pytest.mark.parametrize("text", ["XX:eps=1", "CA:W=1:eps=0.1", "ES:speed=3", "ES:eps=fast"])
def test_strings_outside_the_grammar_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read|unknown attack|could not convert"):
        parse_attack(text)
    with pytest.raises(ResultError, match="RobRank attack strings"):
        read(tmp_path, {text: [{}, {}]})


def test_a_percentage_where_a_fraction_belongs_is_refused(tmp_path: Path) -> None:
    value = swipe()
    value[f"LTM:{TAIL}"][1]["r@1"] = 59.5
    with pytest.raises(ResultError, match="outside its range"):
        read(tmp_path, value)


@pytest.mark.parametrize("profile", ["rob28", "rob224", "cvpr", "rob28-nes"])
def test_every_profile_with_nine_attacks_gives_ten_components_and_ers(profile: str, tmp_path: Path) -> None:
    file = tmp_path / f"epoch=7.{profile}.json"
    file.write_text(json.dumps(swipe()))
    (run,) = read_runs(file)
    assert len(run.components) == 10
    assert run.ers == pytest.approx(63.3, abs=0.05)
    assert any("divides its embedding shift by the population" in note for note in run.notes) == profile.endswith("nes")


def test_a_swipe_of_many_budgets_keeps_every_attack(tmp_path: Path) -> None:
    value = {}
    for m in (1, 2, 5, 10):
        for sign in "+-":
            for eps in ("0.03137", "0.30196"):
                tail = f"eps={eps}:alpha=0.011764:pgditer=32"
                after = {f"SPQA{sign}:prank": 0.4, f"SPQA{sign}:GTprank": 0.01, "loss": 1e3, "embshift": 0.2}
                value[f"SPQA:pm={sign}:M={m}:{tail}"] = [{**after, f"SPQA{sign}:prank": 0.5}, after]
                shown = {f"CA{sign}:prank": 0.3, "loss": 0.1}
                value[f"CA:pm={sign}:W={m}:{tail}"] = [shown, {**shown, "embshift": 0.4}]
    file = tmp_path / "epoch=7.pami28.json"
    file.write_text(json.dumps(value))
    (run,) = read_runs(file)
    assert len(run.attacks) == 32
    assert run.ers is None
    kept = run.attacks["SPQA:pm=+:M=10:eps=0.03137:alpha=0.011764:pgditer=32"]
    assert (kept.before["prank"], kept.after["preserved_prank"]) == (0.5, 0.01)
    assert kept.settings["eps"] == 0.03137
