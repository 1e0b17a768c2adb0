"""Recipes by name."""

import json
from dataclasses import replace

import pytest

from robustdml.adversary import Pgd
from robustdml.data import DataError, Folder
from robustdml.defenses import Plain
from robustdml.defenses.defense import adversary_of
from robustdml.recipe import override, recipe_from_json, recipe_to_json
from robustdml.recipes import adjusted, check_resumed, recipe, recipes
from robustdml.recipes.cheaper import free, single
from robustdml.recipes.papers import BIBTEX, TITLES, bibtex
from robustdml.recipes.robrank import in_fewer_steps
from robustdml.runs import described
from robustdml.types import RunReference


def test_every_recipe_is_called_what_it_calls_itself_and_survives_json():
    for name, make in recipes().items():
        made = make()
        assert made.name == name
        assert make.__doc__
        assert made.paper in {"", *BIBTEX}
        assert recipe_from_json(json.loads(json.dumps(recipe_to_json(made)))) == made


@pytest.mark.parametrize(("text", "model", "loss", "defense"), [
    ("act-fashion-c2f2", "C2F2", "Triplet", "AntiCollapse"),
    ("cub:rres18px:ptripletN", "resnet18", "Triplet", "Mixture(AntiCollapse, Plain)"),
    ("fashion:rc2f2:pncaN", "C2F2", "NCALoss", "Plain"),
    ("fashion:hc2f2:ptripletN", "C2F2Hybrid", "Hybrid(Triplet)", "Plain"),
])  # fmt: skip
def test_tables_say_what_a_model_is_made_of(text, model, loss, defense):
    said = described(recipe(text))
    assert (said["model"], said["loss"], said["defense"]) == (model, loss, defense)


def test_a_recipe_from_a_name_a_string_a_file_and_a_folder(tmp_path):
    made = recipe("act-digits-small")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_to_json(made)))
    assert recipe(str(tmp_path)) == recipe(str(tmp_path / "recipe.json")) == made
    assert recipe("fashion:rc2f2p:ptripletN").name == "fashion-rc2f2p-ptripletN"


def test_quick_recipes_keep_the_reach_and_say_how_they_depart():
    for name in ("est-fashion-c2f2", "act-fashion-c2f2", "amdsemi-fashion-c2f2", "act-mnist-c2f2"):
        whole, quick = recipe(name), recipe(f"{name}-quick")
        assert (quick.precision, type(quick.defense)) == ("bf16", type(whole.defense))
        searches = [r.defense.adversary.search for r in (whole, quick)]
        assert [s.steps for s in searches] == [32, 8]
        assert searches[0].steps * searches[0].step_size == pytest.approx(searches[1].steps * searches[1].step_size)
        assert searches[0].saturation == searches[1].saturation
        assert quick.note
    with pytest.raises(ValueError, match="in_fewer_steps needs EST, ACT, AMD-semi or HM, got Plain"):
        in_fewer_steps(Plain(), 8)


def test_cheaper_recipes_take_single_steps_of_the_whole_radius():
    for name in ("est-fashion-c2f2", "act-fashion-c2f2", "hm-lga-ics-fashion-c2f2"):
        whole, once = recipe(name), recipe(f"{name}-single")
        assert once.defense.adversary.search == Pgd(1, 77 / 255, random_start=True)
        assert replace(once.defense, adversary=whole.defense.adversary) == whole.defense
    for name, mark in (("act-fashion-c2f2", "not measured yet; "), ("hm-lga-ics-fashion-c2f2", "")):
        made, listed = free(recipe(name)), recipe(f"{name}-free")
        assert made == replace(listed, note=mark + listed.note)
        assert made.note.startswith("not measured yet; ")
        assert (made.defense.repeats * made.epochs, made.defense.inner.adversary.search) == (8, Pgd(1, 77 / 255))
    mixed = recipe("cub:rres18px:ptripletN")
    once = single(mixed).defense
    assert (once.first.adversary.search, once.second) == (Pgd(1, 8 / 255, random_start=True), Plain())
    assert (free(mixed).defense.first.inner.adversary.search, free(mixed).defense.second) == (Pgd(1, 8 / 255), Plain())
    penalised = single(recipe("fashion:rc2f2pbt:ptripletN")).defense
    assert penalised.inner.adversary.search == Pgd(1, 77 / 255, random_start=True)
    slow = free(recipe("pgd-cifar10-resnet18"))
    assert (slow.epochs, slow.milestones) == (50, (25, 37))
    assert "batch statistics are learned" in free(recipe("est-cub-resnet18")).note
    with pytest.raises(ValueError, match="plain-fashion-c2f2 has no adversary to make cheaper; its defense is Plain"):
        single(recipe("plain-fashion-c2f2"))


def test_recipes_that_nobody_has_measured_say_so():
    for name in ("amd", "ramd", "amdsemi", "freeat"):
        assert "not measured yet" in recipe(f"{name}-fashion-c2f2").note
    assert "not measured yet" in recipe("amdsemi-fashion-c2f2-quick").note
    assert "not measured" not in recipe("act-fashion-c2f2-quick").note


def test_unknown_recipes():
    with pytest.raises(ValueError, match="Did you mean act-digits-small"):
        recipe("act-digits-smal")
    with pytest.raises(DataError):
        recipe("nowhere/recipe.json")


def test_fields_are_set_from_words():
    base = recipe("act-digits-small")
    settings = {
        "data": "folder:photos",
        "data.image_size": "32",
        "defense.adversary.ball.eps": "8/255",
        "defense.adversary.ball": "L2",
        "loss.miner": "SoftHard",
        "clip": "1.0",
    }
    made = adjusted(base, list(settings.items()))
    assert made.data == Folder("photos", image_size=32)
    assert (type(made.defense.adversary.ball).__name__, made.defense.adversary.ball.eps) == ("L2", 8 / 255)
    assert (type(made.loss.miner).__name__, made.clip) == ("SoftHard", 1.0)
    assert adjusted(base, [("data", "Digits")]) == base
    with pytest.raises(ValueError, match="Did you mean adversary"):
        adjusted(base, [("defense.adversry.ball.eps", "8/255")])


def test_settings_that_need_each_other_are_given_in_any_order():
    base = recipe("act-digits-small")
    settings = [("defense", "AdversarialTraining"), ("loss", "MultiSimilarity")]
    made = adjusted(base, settings)
    assert made == adjusted(base, settings[::-1])
    assert made.defense.adversary == base.defense.adversary
    watched = [("validation.choose", "true"), ("validation.share", "0.1")]
    assert adjusted(base, watched) == adjusted(base, watched[::-1])
    fewer = adjusted(recipe("plain-cifar100-resnet18"), [("decay", "cosine"), ("milestones", "none")])
    assert (fewer.decay, fewer.milestones) == ("cosine", ())
    with pytest.raises(ValueError, match=r"^--defense AdversarialTraining: .*Triplet chooses triplets"):
        adjusted(base, settings[:1])
    with pytest.raises(ValueError, match=r"^--seed 1 --defense AdversarialTraining: .*Triplet chooses triplets"):
        adjusted(base, [("seed", "1"), *settings[:1]])


def test_a_setting_given_twice_is_refused():
    twice = [("defense", "Replay"), ("defense", "Growing")]
    with pytest.raises(ValueError, match=r"--defense is given twice.*--defense\.inner"):
        adjusted(recipe("act-digits-small"), twice)
    with pytest.raises(ValueError, match="--clip is given twice"):
        adjusted(recipe("act-digits-small"), [("clip", "1"), ("clip", "2")])


def test_a_loss_that_cannot_train_the_distance_before_it_brings_its_own():
    made = adjusted(recipe("pgd-digits-small"), [("loss", "FrozenPrototypes")])
    assert type(made.loss.distance).__name__ == "Cosine"
    with pytest.raises(ValueError, match="does not rank by"):
        adjusted(recipe("pgd-digits-small"), [("loss", "FrozenPrototypes"), ("loss.distance", "Euclidean")])


def test_an_unknown_miner_is_answered_with_miners():
    base = adjusted(recipe("act-digits-small"), [("defense", "HardnessManipulation")])
    with pytest.raises(ValueError, match=r"unknown type 'Nope'.*SemiHard"):
        adjusted(base, [("defense.source", "Nope")])


def test_the_loss_of_a_hybrid_follows_the_width_of_its_model():
    base = recipe("fashion:hc2f2:ptripletN")
    made = adjusted(base, [("model.dim", "64"), ("loss.metric.margin", "0.3")])
    assert (made.model.dim, made.loss.width, made.loss.distance.width) == (64, 64, 64)
    assert made.loss.build(10, made.model.build((1, 28, 28)).dim).width == 64
    with pytest.raises(ValueError, match=r"takes 64 numbers .* C2F2Hybrid gives 512\. Type --model\.dim 64"):
        adjusted(base, [("loss.width", "64")])
    with pytest.raises(ValueError, match=r"--model\.dmi: C2F2Hybrid has no field 'dmi'"):
        adjusted(base, [("model.dmi", "64")])


def test_resuming_needs_the_same_recipe(tmp_path):
    base = recipe("act-digits-small")
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_to_json(adjusted(base, [("epochs", "3")]))))
    check_resumed(tmp_path, base, [])
    check_resumed(tmp_path, base, [("epochs", "3")])
    with pytest.raises(ValueError, match="--epochs 4 differs"):
        check_resumed(tmp_path, base, [("epochs", "4")])
    with pytest.raises(ValueError, match="holds a run of act-digits-small"):
        check_resumed(tmp_path, recipe("plain-digits-small"), [])


def test_bibtex_holds_each_paper_once():
    assert set(BIBTEX) == set(TITLES)
    text = bibtex(["robrank", "est", "robrank", ""])
    assert text.count("@") == 2
    assert "2106.03614" in text
    assert "2002.11293" in text


@pytest.mark.parametrize(("path", "text"), [("start", "runs/x"), ("start.path", "runs/x"), ("start", "x.safetensors")])
def test_a_training_begins_with_the_weights_of_a_run(path, text):
    assert override(recipe("plain-digits-small"), path, text).start == RunReference(text)


def test_a_start_is_taken_away_again():
    begun = override(recipe("plain-digits-small"), "start", "runs/x")
    assert override(begun, "start.path", "runs/y").start == RunReference("runs/y")
    assert override(begun, "start", "none").start is None


def test_robust_recipes_begin_with_the_run_they_need_and_rank_on_the_sphere():
    for name, start, steps in (
        ("fashion-c2f2-first", "act-fashion-c2f2-quick", 8),
        ("fashion-c2f2", "robust-fashion-c2f2-first", 8),
        ("cifar100-resnet18", "plain-cifar100-resnet18", 4),
    ):
        made = recipe(f"robust-{name}")
        assert made.start == RunReference(f"runs/{start}")
        assert made.start.path.removeprefix("runs/") in recipes()
        assert adversary_of(made.defense).search.steps == steps
        assert type(made.loss.distance).__name__ == "Spherical"
        assert (made.decay, made.averaging > 0) == ("cosine", True)
