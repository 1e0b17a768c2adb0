"""robustdml diagnose."""

import json

from tests.cli.conftest import run


def test_a_run_is_diagnosed_in_a_process_of_its_own(trained, here):
    words = ("diagnose", trained, "--triplets", 24, "--pairs", 12, "--steps", 2, "--step-size", "40/255", "--out", "d")
    code, out, err = run(*words, "--defenses", "EST", "ACT", "AMD", "--json", cwd=here)
    assert code == 0, err
    value = json.loads(out)
    assert value == json.loads((here / "d" / "diagnosis.json").read_text())
    assert list(value["statistics"]) == ["EST", "ACT", "AMD"]
    assert (value["name"], value["dataset"], value["seed"]) == ("plain-digits-small", "digits", 0)
    search = value["diagnosis"]["defenses"]["AMD"]["adversary"]["search"]
    assert (search["steps"], search["step_size"]) == (2, 40 / 255)
    assert {p.name for p in (here / "d").iterdir()} == {f"diagnosis.{s}" for s in ("json", "npz", "png", "svg")}


def test_a_table_for_people(here, call):
    code, out, _ = call("diagnose", "pixels", "--data", "digits", "--triplets", 8, "--steps", 1, "--quiet")
    assert code == 0
    assert "adversary: linf eps 77/255 = 0.302, Pgd, 1 steps" in out
    assert "gradient to the anchor" in out
    assert "written: runs/pixels-digits/diagnosis.json" in out


def test_misuse_is_told_before_anything_is_loaded(here, call):
    for words, said in (
        (("--defenses", "ACD"), "unknown defense 'ACD' for a diagnosis. Did you mean"),
        (("--miner", "Softhard"), "Did you mean SoftHard"),
        (("--triplets", 0), "at least 1 triplet"),
        (("--steps", 0), "Pgd needs steps >= 1"),
        (("--eps", "-1/255"), "eps must be a finite number >= 0"),
    ):
        code, _, err = call("diagnose", "pixels", "--data", "mnist", "--data-root", "nowhere", *words)
        assert (code, said in err) == (2, True), err
    code, _, err = call("diagnose", "pixels", "--data", "digits", "--normalisation", "rows")
    assert code == 2
    code, _, err = call("diagnose", "runs/nothing")
    assert code == 4
    assert "no such folder" in err
