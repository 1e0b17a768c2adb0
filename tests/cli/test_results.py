"""robustdml report, compare, list, data, doctor: what needs no model."""

import json
import shutil

import pytest

from robustdml.data import DATASETS
from tests.cli.conftest import run
from tests.data.fakes import CUB, add_to_tar, cub, packed


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory, quick_profile):
    """Two result folders: the digits network and the pixels."""
    from robustdml.cli.main import main

    folder = tmp_path_factory.mktemp("scored")
    words = ["benchmark", "--profile", str(quick_profile), "--queries", "16", "--quiet"]
    assert main([*words, str(trained), "--out", str(folder / "net")]) == 0
    assert main([*words, "pixels", "--data", "digits", "--out", str(folder / "pixels")]) == 0
    return folder


def test_report_in_a_process_of_its_own(scored, here):
    code, out, err = run("report", scored / "net", scored / "pixels", "--out", "r.html", cwd=here)
    assert (code, out) == (0, "written: r.html\n"), err
    assert "plain-digits-small" in (here / "r.html").read_text()


def test_report_and_compare_need_paths_that_hold_results(here, call):
    for verb in ("report", "compare"):
        assert call(verb)[0] == 2
        code, _, err = call(verb, "nowhere")
        assert code == 4
        assert "no such file" in err
        (here / "cut.json").write_text("{")
        assert call(verb, "cut.json")[0] == 4
        (here / "newer.json").write_text('{"schema": 99, "attacks": {}}')
        code, _, err = call(verb, "newer.json")
        assert code == 4
        assert "pip install --upgrade" in err
    assert not (here / "report.html").exists()


def test_compare_tells_regressions_by_its_exit_code(scored, here, call):
    code, out, _ = run("compare", scored / "net", scored / "net", "--tolerance", "0", cwd=here)
    assert code == 0
    assert "plain-digits-small" in out
    shutil.copytree(scored / "net", here / "worse")
    file = here / "worse" / "benchmark-quick.json"
    card = json.loads(file.read_text())
    card["clean"]["recall@1"] -= 0.1
    file.write_text(json.dumps(card))
    code, out, _ = call("compare", scored / "net", "worse", "--tolerance", "1.5")
    assert code == 1
    assert "regression: R@1" in out
    assert call("compare", scored / "net", "worse", "--tolerance", 11)[0] == 0
    code, out, _ = call("compare", scored / "net", "worse", "--tolerance", 1, "--json")
    assert code == 1
    assert json.loads(out)["regressions"][0].startswith("R@1")


def test_compare_misuse(scored, call):
    assert call("compare", scored / "net", "--tolerance", 1)[0] == 2
    code, _, err = call("compare", scored / "net", scored / "pixels", "--tolerance", -1)
    assert code == 2
    assert "zero or more" in err


def test_compare_formats(scored, call):
    paths = (scored / "net", scored / "pixels")
    assert call("compare", *paths, "--format", "markdown")[1].startswith("| dataset |")
    assert call("compare", *paths, "--format", "csv")[1].startswith("dataset,model")
    assert len(json.loads(call("compare", *paths, "--json")[1])["rows"]) == 2


NOUNS = ["recipes", "losses", "miners", "distances", "models", "datasets", "defenses", "attacks", "profiles", "metrics",
         "searches", "balls", "transforms"]  # fmt: skip


@pytest.mark.parametrize("noun", NOUNS)
def test_list_names_with_one_line_each(noun, call):
    code, out, _ = call("list", noun, "--json")
    assert code == 0
    found = json.loads(out)
    assert all(entry["name"] and entry["line"] for entry in found)
    assert {k for entry in found for p in entry["parameters"] for k in p} <= {"name", "type", "default"}
    table = call("list", noun)[1]
    assert all(f"{entry['name']}" in table for entry in found)


def test_list_shows_papers(call):
    code, out, _ = call("list", "recipes", "--bibtex")
    assert code == 0
    assert out.count("@") == 3
    assert call("list", "papers")[1].count("@") == 3
    assert "act-digits-small [robrank]" in call("list", "recipes")[1]


def test_list_of_nothing(call):
    code, _, err = call("list", "loses")
    assert code == 2
    assert "Did you mean losses" in err


def test_list_in_a_process_of_its_own(here):
    code, out, _ = run("list", "losses", cwd=here)
    assert code == 0
    assert "margin: float = 0.2" in out


def test_data_in_a_process_of_its_own(here):
    code, out, _ = run("data", "digits", "--json", cwd=here)
    assert code == 0
    assert json.loads(out)["images"] == {"train": 1437, "query": 360, "gallery": 360}


@pytest.fixture
def nowhere(here, monkeypatch):
    """No data set anywhere."""
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.delenv("ROBUSTDML_DATA", raising=False)
    return here


def test_missing_data_says_where_it_looked_and_how_to_get_it(nowhere, call):
    code, out, _ = call("data", "mnist")
    assert code == 4
    assert f"{nowhere}/cache/robustdml/MNIST/raw: not there" in out
    assert "robustdml data mnist --download" in out
    code, _, err = call("train", "plain-mnist-c2f2", "--out", "run")
    assert code == 4
    assert "robustdml data mnist --download" in err
    assert not (nowhere / "run").exists()


def test_mislabelled_and_truncated_data_files(nowhere, call):
    raw = nowhere / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0" * 50)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x03")
    code, _, err = call("train", "plain-mnist-c2f2", "--data-root", nowhere, "--out", "run")
    assert code == 4
    assert "expected" in err
    assert not (nowhere / "run").exists()
    assert call("data", "mnist", "--data-root", nowhere)[0] == 4


def test_archives_that_are_none(nowhere, call):
    (nowhere / "a.zip").write_bytes(b"not an archive")
    for archive, said in (("a.zip", "neither a zip nor a tar"), ("b.zip", "no archive")):
        code, _, err = call("data", "mnist", "--from", archive, "--data-root", nowhere / "data")
        assert code == 4
        assert said in err
    assert call("data", "digits", "--download")[0] == 2
    assert call("data", "mnist", "--download", "--from", "a.zip")[0] == 2
    assert call("data", "mnits")[0] == 2


def test_doctor(nowhere, call):
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == (1 if found["problems"] else 0)
    assert found["datasets"]["digits"]["present"]
    assert not found["datasets"]["mnist"]["present"]
    assert found["packages"]["torch"]
    assert found["cache"] == {"path": f"{nowhere}/cache/robustdml", "writable": True}
    assert "torch" in call("doctor")[1]


def test_doctor_names_a_cache_that_cannot_be_written(nowhere, call):
    code, out, _ = call("doctor", "--data-root", "/proc/nothing")
    assert code == 1
    assert "problem: /proc/nothing cannot be written" in out


def test_a_damaged_folder_is_not_called_missing(here, call):
    (here / "photos/cats").mkdir(parents=True)
    code, out, _ = call("data", "folder:photos")
    assert code == 4
    assert out.startswith("folder:photos: found, but it cannot be used")
    assert call("data", "folder:nothing")[1].startswith("folder:nothing: missing")


def test_data_are_unpacked_decoded_and_kept(here, call, monkeypatch):
    monkeypatch.setitem(DATASETS, "cub", lambda: CUB)
    archive = packed(here / "birds.tgz", cub(here / "elsewhere"))
    code, out, err = call("data", "cub", "--from", archive, "--data-root", here / "root", "--decode", "--cache")
    assert code == 0, err
    assert "cub: complete: 6 train, 4 query, 4 gallery images of 5 classes" in out
    assert "1,920 bytes" in err
    assert len(list((here / "root/decoded").iterdir())) == 1
    (here / "root/CUB_200_2011/images/001.Bird_1/b_1_0.jpg").write_bytes(b"no image")
    code, out, _ = call("data", "cub", "--data-root", here / "root", "--decode")
    assert code == 4
    assert "1 of 10 images are damaged" in out
    add_to_tar(here / "evil.tar", "CUB_200_2011/images/../../../x.jpg")
    code, _, err = call("data", "cub", "--from", here / "evil.tar", "--data-root", here / "root")
    assert code == 4
    assert "leads out of it" in err
