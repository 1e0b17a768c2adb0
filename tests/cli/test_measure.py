"""robustdml evaluate, attack and benchmark: targets, data of every kind, interruption, processes."""

import json
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from robustdml.adversary import L2, Adversary, Linf, Pgd
from robustdml.attacks.goals import Mismatch
from robustdml.profile import PROFILES, Measurement, Profile, profile_to_json
from tests.cli.conftest import finish, run, start, timeless, wait_for

GENERATOR = np.random.default_rng(0)


def folder_of_images(folder, classes=4, per_class=6, size=8, make=None):
    """Noise around one random image per class."""
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        centre = GENERATOR.integers(40, 215, (size, size, 3))
        for i in range(per_class):
            pixels = (centre + GENERATOR.integers(-20, 20, centre.shape)).astype(np.uint8)
            image = Image.fromarray(pixels)
            (make or (lambda image, path: image.save(path)))(image, folder / f"class{c}" / f"{i}.png")
    return folder


@pytest.fixture
def photos(here):
    return folder_of_images(here / "photos")


def test_evaluate_in_a_process_of_its_own(trained, here):
    code, out, err = run("evaluate", trained, "--out", "scores", "--json", cwd=here)
    assert code == 0, err
    value = json.loads(out)
    assert value == json.loads((here / "scores" / "evaluation.json").read_text())
    keys = (
        "schema clean queries gallery classes lonely_queries dataset distance embedding name seed provenance model loss"
    )
    assert {*keys.split(), "defense"} <= value.keys()
    assert (value["name"], value["dataset"], value["queries"]) == ("plain-digits-small", "digits", 360)
    assert value["provenance"]["command"] == f"robustdml evaluate {trained} --out scores --json"
    assert set(value["clean"]) == {"recall@1", "recall@2", "map", "map_at_r", "map_at_10", "r_precision", "nmi"}


def test_a_table_for_people(trained, here, call):
    code, out, _ = call("evaluate", trained, "--out", "scores")
    assert code == 0
    assert re.search(r"Recall@1 +\d+\.\d", out)
    assert "written: scores/evaluation.json" in out


def test_a_checkpoint_can_be_moved_and_a_weight_file_needs_a_recipe(trained, here, call):
    shutil.copytree(trained / "checkpoints" / "last", here / "moved")
    first = json.loads(call("evaluate", trained, "--json", "--out", "a")[1])["clean"]
    assert json.loads(call("evaluate", "moved", "--json", "--out", "b")[1])["clean"] == first
    file = here / "moved" / "model.safetensors"
    code, _, err = call("evaluate", file)
    assert code == 2
    assert "--recipe" in err
    recipe = trained / "recipe.json"
    assert json.loads(call("evaluate", file, "--recipe", recipe, "--json")[1])["clean"] == first
    assert (here / "runs" / "model" / "evaluation.json").exists()


def test_bare_models(here, call):
    (here / "mymodels.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def network(): return nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()\n"
        "def function(): return lambda images: images.flatten(1)\n"
        "def broken(): return lambda images: images\n"
        "def nothing(): return 3\n"
        "def constant(): return lambda images: images.flatten(1) * 0 + 1\n"
        "def nan(): return lambda images: images.flatten(1) / 0 * 0\n"
    )
    pixels = json.loads(call("evaluate", "pixels", "--data", "digits", "--json")[1])
    assert (here / "runs" / "pixels-digits" / "evaluation.json").exists()
    assert pixels["clean"]["recall@1"] > 0.9
    for name in ("network", "function"):
        found = json.loads(call("evaluate", f"mymodels:{name}", "--data", "digits", "--json")[1])
        assert found["clean"] == pixels["clean"]
    cosine = json.loads(call("evaluate", "pixels", "--data", "digits", "--distance", "Cosine", "--json")[1])
    assert cosine["distance"] == "Cosine"
    for name, expected, said in (
        ("broken", 2, "returned a tensor of shape (2, 1, 8, 8)"),
        ("nothing", 2, "returned int"),
        ("netwrk", 2, "Did you mean network?"),
        ("nan", 1, "embeddings are NaN or infinite"),
    ):
        code, _, err = call("evaluate", f"mymodels:{name}", "--data", "digits")
        assert code == expected
        assert said in err
    assert "mymodells" in call("evaluate", "mymodells:x", "--data", "digits")[2]
    code, out, _ = call("benchmark", "mymodels:constant", "--data", "digits", "--queries", 4, "--strict", "--json")
    card = json.loads(out)
    assert code == 3
    assert card["ers"] == pytest.approx(10, abs=1e-3)
    assert "collapse" in [flag["name"] for flag in card["flags"]]
    code, out, _ = call(
        "attack", "mymodels:network", "--data", "digits", "--attack", "ES", "--queries", 4, "--steps", 1
    )
    assert code == 0
    assert "the model came in training mode" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nowhere",), 4, "no such folder"),
        (("act-digits-small",), 4, "Train it first: robustdml train act-digits-small"),
        (("pixels",), 2, "--data"),
        (("pixels", "--data", "digitz"), 2, "Did you mean digits"),
        (("pixels", "--data", "folder:nowhere"), 4, "missing"),
        (("pixels", "--data", "digits", "--distance", "Cosin"), 2, "Did you mean Cosine"),
        (("model.ckpt",), 4, "no such file"),
        (("model.safetensors", "--recipe", "plain-digits-small"), 4, "no such file"),
    ],
)
def test_targets_that_are_not_there(here, call, words, code, said):
    found, out, err = call("evaluate", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert not (here / "runs").exists()


def test_timm_without_the_extra_says_what_to_install(here, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    code, _, err = call("evaluate", "timm:resnet18", "--data", "digits")
    assert code == 1
    assert "pip install 'robustdml[vision]'" in err


def test_a_timm_model_embeds_whatever_torchvision_comes_with_it():
    """In a process of its own: a torchvision that does not import leaves its traces in torch."""
    program = (
        "import torch; from robustdml.models.backbones import timm_embedder; "
        "print(tuple(timm_embedder('resnet18', pretrained=False).eval()(torch.rand(2, 1, 64, 64)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(2, 512)", done.stderr[-500:]


def test_damaged_and_foreign_checkpoints(trained, here, call):
    good = trained / "checkpoints" / "last"
    weights = load_file(good / "model.safetensors")

    def with_weights(name, write):
        shutil.copytree(good, here / name)
        write(here / name / "model.safetensors")
        return call("evaluate", name)

    nan = {k: torch.full_like(v, torch.nan) for k, v in weights.items()}
    fewer = dict(list(weights.items())[:-1])
    cut = (good / "model.safetensors").read_bytes()[:1000]
    for name, write, said in (
        ("pickle", lambda p: torch.save(weights, p), "pickle, which can run code"),
        ("old-pickle", lambda p: torch.save(weights, p, _use_new_zipfile_serialization=False), "pickle"),
        ("truncated", lambda p: p.write_bytes(cut), "not a complete safetensors file"),
        ("empty", lambda p: p.write_bytes(b""), "not a complete safetensors file"),
        ("nan", lambda p: save_file(nan, p), "NaN or infinite weights"),
        ("foreign", lambda p: save_file(fewer, p), "missing: layers"),
    ):
        code, out, err = with_weights(name, write)
        assert (code, out) == (4, ""), name
        assert said in err, name
    shutil.copytree(good, here / "recipe")
    (here / "recipe" / "recipe.json").write_text('{"type": "Recipe"}')
    assert call("evaluate", "recipe")[0] == 4
    torch.save(weights, here / "x.ckpt")
    code, _, err = call("evaluate", "x.ckpt")
    assert code == 2
    assert "--recipe DATASET:MODEL:LOSS" in err


def test_benchmark_in_a_process_of_its_own_gives_the_same_bytes_however_it_runs(trained, here, call, quick_profile):
    words = ("benchmark", trained, "--profile", quick_profile, "--queries", 80, "--device", "cpu")
    assert call(*words, "--out", "whole", "--quiet")[0] == 0
    whole = json.loads((here / "whole" / "benchmark-quick.json").read_text())
    assert whole["provenance"]["command"].startswith(f"robustdml benchmark {trained} --profile")
    for name, more, stop in (("killed", (), "kill"), ("stopped", (), "terminate"), ("two", ("--processes", 2), None)):
        again = (*words, "--out", name, *more)
        if stop:
            process = start(*again, cwd=here)
            wait_for(lambda name=name: len(list((here / name).glob("units/*/*.npz"))) > 3, process)
            getattr(process, stop)()
            code, out, err = finish(process)
            assert out == ""
            assert not (here / name / "benchmark-quick.json").exists()
            if stop == "terminate":
                assert code == 130
                assert f"robustdml benchmark {trained} --profile {quick_profile}" in err
        code, out, err = call(*again) if stop else run(*again, cwd=here)
        assert code == 0, err
        assert timeless(json.loads((here / name / "benchmark-quick.json").read_text())) == timeless(whole)
        assert not (here / name / "units").exists()
        with np.load(here / "whole" / "benchmark-quick.npz") as a, np.load(here / name / "benchmark-quick.npz") as b:
            assert a.files == b.files
            assert all(np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f") for k in a.files)


def test_a_benchmark_writes_curve_and_pictures_if_wanted(trained, here, call, quick_profile):
    words = ("benchmark", trained, "--profile", quick_profile, "--queries", 8, "--curve", "--examples", 2, "--out", "b")
    code, out, err = call(*words)
    assert code == 0, err
    assert {p.name for p in (here / "b").iterdir()} == {
        "benchmark-quick.json", "benchmark-quick.npz", "curve-quick.json", "examples-quick.npz"
    }  # fmt: skip
    assert re.search(r"^ERS \d+\.\d \[", out, re.MULTILINE)
    assert "eps 77/255 = 0.302" in out
    assert call("report", "b", "--out", "b.html")[0] == 0


def test_a_plan_counts_what_the_benchmark_then_does(trained, here, call):
    words = ("benchmark", trained, "--queries", 16, "--out", "b", "--json")
    plan = json.loads(call(*words, "--dry-run")[1])
    assert not (here / "b").exists()
    cost = json.loads(call(*words)[1])["cost"]
    assert (plan["forward"], plan["backward"]) == (cost["forward"], cost["backward"])


def test_one_attack(trained, here, call):
    words = ("attack", trained, "--queries", 20, "--out", "a", "--json")
    code, out, err = call(*words, "--attack", "ES", "--steps", 3)
    assert code == 0, err
    card = json.loads(out)
    assert (card["profile"], card["attacks"]["ES"]["eps"]) == ("attack-ES-steps3", 77 / 255)
    assert (here / "a" / "benchmark-attack-ES-steps3.json").exists()
    weak = json.loads(call(*words, "--attack", "ES", "--steps", 3, "--eps", "8/255")[1])
    assert weak["attacks"]["ES"]["after"]["shift"] < card["attacks"]["ES"]["after"]["shift"]
    assert weak["profile"] == "attack-ES-eps8-steps3"  # another budget, another file
    none = json.loads(call(*words, "--attack", "ES", "--eps", 0)[1])
    assert none["attacks"]["ES"]["after"]["recall@1"] == none["attacks"]["ES"]["before"]["recall@1"]
    l2 = json.loads(call(*words, "--attack", "CA+", "--norm", "l2", "--eps", 0.5, "--steps", 5, "--count", 2)[1])
    assert l2["threat_model"]["norm"] == "l2"
    assert l2["threat_model"]["step_size"] == pytest.approx(0.25)
    text = json.loads(call(*words, "--attack", "CA:pm=+:W=1:eps=0.03137:alpha=0.0117:pgditer=4")[1])
    assert text["profile"] == "attack-CA+-published-eps7.9994-steps4-size2.9835"
    assert (text["threat_model"]["eps"], text["threat_model"]["steps"]) == (0.03137, 4)


NEW = ("SPQA+", "SPQA-", "FOA", "SPFOA", "QA+-local", "CA--visual", "CA+-distance", "SPQA--distance", "QA+-universal")


def test_attacks_that_preserve_order_or_serve_all(trained, here, call):
    for name in NEW:
        code, out, err = call(
            "attack", trained, "--attack", name, "--queries", 20, "--steps", 2, "--out", "a", "--json"
        )
        assert code == 0, err
        card = json.loads(out)
        assert card["attacks"][name]["after"].keys() - {"shift"} <= {
            "prank", "preserved_prank", "swapped", "tau", "seen_prank", "unseen_prank",
        }  # fmt: skip
    code, out, _ = call(
        "attack", trained, "--attack", "SPQA-", "--count", 4, "--steps", 2, "--queries", 20, "--out", "a"
    )
    assert "preserved_prank" in out
    assert "attack-SPQA--4-steps2" in out


def test_a_black_box_attack_and_its_plan(trained, here, call):
    words = ("attack", trained, "--attack", "CA+", "--search", "nes", "--population", 6, "--steps", 2, "--queries", 10)
    plan = json.loads(call(*words, "--dry-run", "--json")[1])
    assert (plan["forward"], plan["backward"]) == (10 * (3 * 6 + 1) + 360, 0)
    code, out, err = call(*words, "--out", "a", "--json")
    assert code == 0, err
    card = json.loads(out)
    assert (card["cost"]["forward"], card["cost"]["backward"]) == (plan["forward"], 0)
    assert card["threat_model"]["knowledge"] == "energies alone (black box)"
    assert card["attacks"]["CA+"]["population"] == 6
    assert "zero_gradient" not in card["checks"]


def test_a_transfer_attack_and_its_plan(trained, here, call):
    words = ("attack", trained, "--attack", "ES", "--steps", 3, "--queries", 10, "--json")
    own = json.loads(call(*words, "--out", "own")[1])
    label = "-".join(trained.parts[-2:])  # it lies outside the current folder
    for extra, name in (((), label), (("--energy-gallery", "target"), f"{label}-as-published")):
        transfer = (*words, "--surrogate", trained, *extra)
        plan = json.loads(call(*transfer, "--dry-run")[1])
        code, out, err = call(*transfer, "--out", "a")
        assert code == 0, err
        card = json.loads(out)
        assert card["profile"] == f"attack-ES-steps3-from-{name}"
        assert card["attacks"]["ES"]["after"] == own["attacks"]["ES"]["after"]  # the surrogate is the target itself
        assert card["attacks"]["ES"]["surrogate"] == str(trained)
        assert (card["cost"]["forward"], card["cost"]["backward"]) == (plan["forward"], plan["backward"])
        assert card["provenance"]["surrogates"][str(trained)] == card["provenance"]["weights"]
    bare = (
        "attack",
        "pixels",
        "--data",
        "digits",
        "--attack",
        "ES",
        "--queries",
        5,
        "--steps",
        1,
        "--surrogate",
        trained,
    )
    assert call(*bare, "--out", "b")[0] == 0
    code, out, err = call(*bare, "--out", "c", "--energy-gallery", "target")
    assert (code, out) == (2, "")
    assert "embeds into" in err
    assert "own gallery" in err
    assert call("attack", trained, "--attack", "ES", "--energy-gallery", "target")[0] == 2
    code, _, err = call(*words, "--surrogate", "runs/none", "--out", "d")
    assert code == 4
    assert "runs/none: no such folder" in err
    assert not (here / "c").exists()
    assert not (here / "d").exists()


def test_a_profile_of_several_norms_is_printed(trained, here, call):
    measurements = tuple(
        Measurement(type(ball).__name__, Mismatch(), Adversary(ball, Pgd(1, 0.5))) for ball in (Linf(0.5), L2(0.5))
    )
    (here / "norms.json").write_text(json.dumps(profile_to_json(Profile("norms", measurements))))
    code, out, err = call("benchmark", trained, "--profile", "norms.json", "--queries", 3, "--out", "n")
    assert code == 0, err
    assert "several norms, eps 0.5" in out


def test_results_by_way_of_different_surrogates_are_different_files(trained, here, call):
    for folder in ("runs/a", "runs/b", "other"):
        shutil.copytree(trained, here / folder)
    words = ("attack", trained, "--attack", "ES", "--steps", 1, "--queries", 4, "--out", "out")
    for surrogate in ("runs/a", "runs/b", "other", "runs/a/checkpoints/last"):
        assert call(*words, "--surrogate", surrogate)[0] == 0
    names = {f.stem.partition("-from-")[2] for f in (here / "out").glob("*.json")}
    assert names == {"a", "b", "other", "a-last"}


def test_a_curve_of_many_budgets_is_refused_before_anything_is_attacked(trained, here, call):
    code, _, err = call("benchmark", trained, "--profile", "qccurve28", "--curve", "--queries", 3, "--out", "q")
    assert code == 2
    assert "profile qccurve28 has 12 balls" in err
    code, _, err = call("benchmark", trained, "--profile", "class28", "--examples", 1, "--queries", 3, "--out", "q")
    assert code == 2
    assert "profile class28 has none of them" in err
    assert not (here / "q").exists()


def test_searches_in_turn_are_planned_to_the_end_and_said_to_take_up_to_so_many_steps(trained, call, here):
    code, out, err = call("benchmark", trained, "--profile", "strong28", "--dry-run", "--json")
    assert code == 0, err
    most = 10 + 3 * 100 + 5 * 100
    assert json.loads(out)["backward_per_image"] == 5 * most
    assert (
        "10 steps of 19.25/255 = 0.0755, then 100 steps"
        in call("benchmark", trained, "--profile", "strong28", "--dry-run")[1]
    )
    profile = json.loads(out)["profile"]
    for m in profile["measurements"]:
        m["adversary"]["search"]["searches"] = m["adversary"]["search"]["searches"][:1]
    (here / "few.json").write_text(json.dumps({**profile, "name": "few"}))
    code, out, err = call("benchmark", trained, "--profile", "few.json", "--queries", 3, "--out", "few")
    assert code == 0, err
    assert "InTurn, up to 10 steps" in out


def test_a_plan_of_many_targets_has_a_gallery_that_holds_them(trained, call):
    code, out, err = call("attack", trained, "--attack", "CA+", "--count", 50, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["backward_per_image"] == 32


def test_profiles_of_many_budgets_and_other_searches(trained, here, call):
    text = json.dumps(profile_to_json(PROFILES["qccurve28"])).replace('"steps": 32', '"steps": 2')
    (here / "curve.json").write_text(text)
    code, out, err = call("benchmark", trained, "--profile", "curve.json", "--queries", 3, "--out", "q")
    assert code == 0, err
    assert "12 budgets" in out
    card = json.loads((here / "q" / "benchmark-qccurve28.json").read_text())
    assert len(card["attacks"]) == 48
    assert card["ers"] is None
    assert card["attacks"]["CA+ W=1 eps=0"]["before"]["prank"] == card["attacks"]["CA+ W=1 eps=0"]["after"]["prank"]
    pranks = {name: a["before"]["prank"] for name, a in card["attacks"].items() if name.startswith("SPQA+")}
    assert len(set(pranks.values())) == 1  # the same targets at every budget
    words = ("benchmark", trained, "--profile", "rob28", "--search", "nes", "--population", 2, "--dry-run", "--json")
    plan = json.loads(call(*words)[1])
    assert plan["forward_per_image"] == 10 * (33 * 2 + 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attack", "QA-", "--count", 400), "400 targets cannot be drawn from the 359 nearest"),
        (("--attack", "CA+", "--count", 400), "400 different targets cannot be drawn from 359 other"),
        (("--attack", "CA:pm=+:W=400"), "400 targets cannot be drawn from 360 gallery items"),
        (("--attack", "SPQA-", "--count", 359), "leave nothing to preserve"),
        (("--attack", "FOA", "--count", 1), "at least two candidates"),
        (("--attack", "misclassify"), "one prototype per class"),
        (("--attack", "ES", "--search", "nes", "--population", 1), "even population"),
        (("--attack", "ES", "--population", 10), "add --search nes"),
        (("--attack", "ES", "--xi", 1), "--xi belongs to"),
    ],
)
def test_attacks_that_cannot_be_made(trained, here, call, words, said):
    code, out, err = call("attack", trained, *words, "--out", "a", "--queries", 10)
    assert (code, out) == (2, "")
    assert said in err
    assert not (here / "a" / f"benchmark-attack-{words[1]}.json").exists()


def test_a_profile_for_other_images_is_refused(trained, here, call):
    code, out, err = call("benchmark", trained, "--profile", "rob224", "--out", "b")
    assert (code, out) == (2, "")
    assert "Use rob28" in err
    assert not (here / "b").exists()
    assert call("benchmark", trained, "--profile", "rob224", "--dry-run")[0] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attack", "ESS"), "Did you mean ES"),
        (("--attack", "CA"), "need a direction"),
        (("--attack", "ES", "--eps=-1/255"), "eps must be"),
        (("--attack", "ES", "--eps", "big"), "fraction such as 8/255"),
        (("--attack", "ES", "--steps", 0), "steps >= 1"),
        (("--attack", "ES", "--norm", "l3"), "linf or l2"),
        (("--attack", "ES", "--norm", "l2"), "give one with --eps"),
        (("--attack", "ES", "--count", 3), "must be 1, as for all but"),
        (("--attack", "CA+", "--count", 0), "must be at least 1; got 0"),
        (("--attack", "es"), "Did you mean ES?"),
        (("--attack", "ES", "--step-size", 0), "moves nothing"),
        (("--attack", "ES", "--queries", 0), "queries must be 1 … 360"),
        (("--attack", "ES", "--queries", 361), "queries must be 1 … 360"),
        (("--attack", "CA:pm=x"), "pm must be + or -"),
        (("--attack", "CA:pm=+:steps=3"), "cannot read 'steps=3'"),
        ((), "--attack"),
    ],
)
def test_attack_misuse(trained, here, call, words, said):
    code, out, err = call("attack", trained, *words, "--out", "a")
    assert (code, out) == (2, "")
    assert said in re.sub(r"\s*│\s*\n?", " ", err)
    assert not (here / "a").exists()


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("rob28-strickt", "Did you mean rob28-strict"),
        ("missing.json", "No such file"),
        ("bad.json", "not a JSON file"),
        ("json:JSONDecoder", "expected a robustdml.profile.Profile"),
        ("json:lods", "Did you mean load"),
        ("odd.json", "no field 'attacks'"),
    ],
)
def test_profiles_that_are_none(trained, here, call, profile, said):
    (here / "bad.json").write_text("{")
    (here / "odd.json").write_text('{"type": "Profile", "name": "x", "attacks": []}')
    code, out, err = call("benchmark", trained, "--profile", profile, "--out", "b")
    assert (code, out) == (2, "")
    assert said in err
    assert not (here / "b").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["grey", "16-bit", "CMYK", "animated"])
def test_unusual_images_are_read(here, call, kind):
    def save(image, path):
        if kind == "grey":
            image.convert("L").save(path)
        elif kind == "16-bit":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
        elif kind == "CMYK":
            image.convert("CMYK").save(path.with_suffix(".jpg"))
        else:
            image.save(path.with_suffix(".gif"), save_all=True, append_images=[image.rotate(90)])

    folder_of_images(here / "photos", make=save)
    code, out, err = call("evaluate", "pixels", "--data", "folder:photos")
    assert code == 0, err
    assert "the gallery has only 12 images" in out


def test_decoded_images_are_kept_if_asked_for(here, call):
    folder_of_images(here / "photos")
    scores = []
    for words in ((), ("--cache",)):
        code, out, err = call("evaluate", "pixels", "--data", "folder:photos", "--data-root", "root", "--json", *words)
        assert code == 0, err
        scores.append(json.loads(out)["clean"])
        assert len([*(here / "root").glob("decoded/*.npy")]) == len(words)
    assert scores[0] == scores[1]


def test_folders_that_are_no_data_set(here, call):
    folder_of_images(here / "one", classes=1)
    code, _, err = call("evaluate", "pixels", "--data", "folder:one")
    assert code == 4
    assert "ranking needs two" in err
    broken = folder_of_images(here / "broken")
    for file in broken.glob("*/3.png"):
        file.write_bytes(b"not an image")
    assert call("evaluate", "pixels", "--data", "folder:broken")[0] == 4
    cut = folder_of_images(here / "cut")
    for file in cut.glob("*/3.png"):
        file.write_bytes(file.read_bytes()[:-60])
    code, _, err = call("evaluate", "pixels", "--data", "folder:cut")
    assert code == 4
    assert "3.png" in err
    assert not (here / "runs").exists()


def test_warnings_are_plain_lines_and_quiet_silences_them(here, call):
    folder = folder_of_images(here / "photos")
    (folder / "empty").mkdir()
    for words, seen in (((), True), (("--quiet",), False)):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code, _, err = call("evaluate", "pixels", "--data", "folder:photos", *words)
        assert code == 0
        assert (": 1 classes without images are skipped: empty" in err) == seen
        assert "UserWarning" not in err


def test_lonely_images_and_duplicates(here, call):
    folder = folder_of_images(here / "photos", classes=6)
    for path in (folder / "class0").glob("[1-9].png"):
        path.unlink()
    for file in folder.glob("class1/*.png"):
        shutil.copy(folder / "class1" / "0.png", file) if file.name != "0.png" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = ("--data", "folder:photos", "--profile", "rob32", "--queries", 5, "--json")
        code, out, err = call("benchmark", "pixels", *words)
    assert code == 0, err
    assert json.loads(out)["gallery"] < 100


def test_an_output_folder_that_cannot_be_written(trained, here, call, quick_profile):
    (here / "file").touch()
    assert call("evaluate", trained, "--out", "file/x")[0] == 1
    code, out, err = call("benchmark", trained, "--profile", quick_profile, "--queries", 4, "--out", "file/x")
    assert (code, out) == (1, "")
    assert "cannot write" in err


def test_progress_is_one_plain_line_every_ten_seconds(here, capsys, monkeypatch):
    from robustdml.cli import terminal

    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.Progress() as progress:
        for second in range(31):
            now[0] = float(second)
            progress(second, 60, "CA+")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"CA+: {s} of 60, {s} s, 1/s, about {60 - s} s left" for s in (10, 20, 30)]
    with terminal.Progress(quiet=True) as progress:
        now[0] = 100.0
        progress(1, 2, "CA+")
        progress.note("note")
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(trained, here):
    import os
    import pty

    master, slave = pty.openpty()
    import subprocess

    from tests.cli.conftest import COMMAND, ENVIRONMENT

    words = ("attack", str(trained), "--attack", "ES", "--queries", "40", "--out", "a", "--steps", "2")
    process = subprocess.Popen([*COMMAND, *words], cwd=here, env=ENVIRONMENT | {"TERM": "xterm", "NO_COLOR": "1"},
                               stdout=subprocess.PIPE, stderr=slave, text=True)  # fmt: skip
    out, _ = process.communicate(timeout=60)
    os.close(slave)
    seen = os.read(master, 100_000).decode()
    os.close(master)
    assert process.returncode == 0
    assert "━" in seen
    assert "\x1b[3" not in seen.replace("\x1b[?25", "")  # no colours
    assert "\x1b" not in out
