"""Attacks and profiles by name."""

import json

import pytest

from robustdml.adversary import L2, Adversary, Linf, Nes, Pgd, Universal
from robustdml.attacks.goals import (
    Agnostic,
    Candidate,
    DynamicWeight,
    FixedWeight,
    Mismatch,
    Misrank,
    Order,
    PreservingOrder,
    PreservingQuery,
    Query,
)
from robustdml.names import ATTACKS, attack_profile, named, profile_named
from robustdml.profile import PROFILES, nine_goals, profile_from_json, profile_to_json

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize("name", list(nine_goals(published=True)))
def test_a_bare_name_is_the_corrected_attack(name):
    assert named(name).goal == nine_goals(published=False)[name]
    assert not named(name).published


def test_published_targets_have_names_of_their_own():
    assert named("GTM-published").goal == Mismatch("as-published")
    assert named("LTM-published").goal == Misrank("included")
    assert named("GTM-published").base == "GTM"
    assert named("GTM-corrected").goal == Mismatch()


def test_an_attack_string_is_the_published_attack_with_its_budget():
    found = named("CA:pm=+:W=5:eps=0.03137:alpha=0.0117:pgditer=16")
    assert found.goal == Candidate("raise", 5, unique=False)
    assert (found.base, found.published, found.count) == ("CA+", True, 5)
    assert (found.eps, found.step_size, found.steps) == (0.03137, 0.0117, 16)
    assert named("QA:pm=-:M=2").goal == Query("lower", 2, unique=False)
    assert named("GTM:eps=8/255").goal == Mismatch("as-published")
    assert named("GTM:eps=8/255").eps == 8 / 255


def test_the_default_budget_follows_the_images():
    for shape, eps in (
        (GREY, 77 / 255),
        ((1, 8, 8), 77 / 255),
        (COLOUR, 8 / 255),
        ((1, 32, 32), 8 / 255),
        ((3, 28, 28), 8 / 255),
    ):
        [m] = attack_profile("ES", shape).measurements
        assert m.adversary.ball == Linf(eps)
        assert (m.adversary.search.steps, m.adversary.search.step_size) == (32, 3 / 255)


def test_what_is_given_wins_over_the_string_and_the_string_over_the_default():
    text = "ES:eps=0.1:alpha=0.01:pgditer=8"
    [m] = attack_profile(text, GREY, steps=4).measurements
    assert (m.adversary.ball.eps, m.adversary.search.step_size, m.adversary.search.steps) == (0.1, 0.01, 4)
    [m] = attack_profile(text, GREY, eps=0.2, step_size=0.05, random_start=True).measurements
    assert (m.adversary.ball.eps, m.adversary.search.step_size, m.adversary.search.steps) == (0.2, 0.05, 8)
    assert m.adversary.search.random_start


def test_default_steps_fit_the_ball():
    assert attack_profile("ES", GREY, eps=1 / 255).measurements[0].adversary.search.step_size == 1 / 255
    [m] = attack_profile("ES", GREY, eps=1.0, steps=10, norm="l2").measurements
    assert m.adversary.ball == L2(1.0)
    assert m.adversary.search.step_size == 0.25


def test_the_profile_is_called_after_the_attack():
    assert attack_profile("CA+", GREY).name == "attack-CA+"
    assert attack_profile("GTM-published", GREY).name == "attack-GTM-published"
    assert attack_profile("CA:pm=-", GREY).name == "attack-CA--published"
    assert [m.name for m in attack_profile("GTM-published", GREY).measurements] == ["GTM"]
    many = attack_profile("QA+", GREY, count=5, eps=0.5, norm="l2", step_size=0.02, random_start=True)
    assert many.name == "attack-QA+-5-l2-eps0.5-size5.1-random"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CB+", "Did you mean"),
        ("QA", "need a direction"),
        ("CA:pm=+:K=1", "cannot read 'K=1'"),
        ("CA:pm=+:W=one", "W must be a whole number, got 'one'"),
        ("CA:pm=*", r"pm must be \+ or -"),
        ("CA:pm=+:eps=x", "eps: expected a number or a fraction"),
        ("FOA:pm=-:M=2", "one direction only"),
        ("CA:pm=+:M=5", "cannot read 'M=5'.* CA takes eps, alpha, pgditer, pm, W"),
        ("ES:W=5", "cannot read 'W=5'"),
        ("ES:eps=0.1:eps=0.2", "eps is given twice"),
    ],
)
def test_strings_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        named(text)


def test_preserving_attacks_take_their_weight_from_the_data_set_or_from_the_caller():
    text = "SPQA:pm=-:M=10:eps=0.1:alpha=0.01:pgditer=5"
    assert named(text).goal == PreservingQuery("lower", 10, weight=DynamicWeight())
    assert named("SPQA+").goal == PreservingQuery("raise", 1, unique=True, weight=DynamicWeight())
    for xi, weight in (
        ("100", FixedWeight(100.0)),
        ("image", DynamicWeight(per="image")),
        ("batch", DynamicWeight()),
    ):
        [m] = attack_profile("SPFOA", GREY, count=3, xi=xi).measurements
        assert m.goal == PreservingOrder(3, weight=weight)
    with pytest.raises(ValueError, match="--xi belongs to the attacks that preserve something"):
        attack_profile("QA+", GREY, xi="1")
    with pytest.raises(ValueError, match="--xi must be batch, image or a fixed weight >= 0, got 'batches'"):
        attack_profile("SPQA+", GREY, xi="batches")


def test_orders_have_two_candidates_unless_told_otherwise():
    assert named("FOA").goal == Order(2)
    assert named("FOA:M=5").goal == named("FOA:pm=+:M=5").goal == Order(5)
    assert attack_profile("FOA", GREY).name == "attack-FOA"
    assert attack_profile("FOA", GREY, count=3).name == "attack-FOA-3"
    with pytest.raises(ValueError, match="at least two candidates"):
        named("FOA", 1)


def test_a_black_box_search_replaces_the_gradient():
    profile = attack_profile("ES", GREY, search="nes", population=50, steps=8, eps=8 / 255)
    [m] = profile.measurements
    assert m.adversary == Adversary(Linf(8 / 255), Nes(8, 50, None, 3 / 255))
    assert profile.name == "attack-ES-nes-population50-eps8-steps8"
    for words, said in (
        ({"search": "nas"}, "--search must be pgd or nes"),
        ({"population": 10}, "add --search nes"),
        ({"search": "nes", "population": 1}, "even population of at least 2, got 1"),
        ({"search": "nes", "random_start": True}, "--random-start is defined for pgd"),
    ):
        with pytest.raises(ValueError, match=said):
            attack_profile("ES", GREY, **words)
    with pytest.raises(ValueError, match="no black-box form"):
        attack_profile("CA+-universal", GREY, search="nes")
    for words in ({"eps": 2 / 255}, {}):  # 3/255 whatever the radius and whatever a string says
        [m] = attack_profile("CA:pm=+:alpha=0.0039", GREY, search="nes", **words).measurements
        assert m.adversary.search.step_size == 3 / 255
    [m] = attack_profile("ES", GREY, search="nes", step_size=0.1).measurements
    assert m.adversary.search.step_size == 0.1
    [m] = attack_profile("ES", GREY, search="nes", norm="l2", eps=1.0, steps=10).measurements
    assert m.adversary.search.step_size == 0.25


def test_a_schedule_derives_the_steps_from_the_radius():
    for eps, size, steps in ((0.01, 1 / 255, 10), (0.06, 0.006, 20), (0.3, 0.01, 30)):
        [m] = attack_profile("QA+", GREY, eps=eps, schedule="eccv").measurements
        search = m.adversary.search
        assert (m.adversary.ball, search.steps, search.step_size) == (Linf(eps), steps, pytest.approx(size))
    for words, said in (
        ({}, "give it with --eps"),
        ({"eps": 0.1, "norm": "l2"}, "from a radius of linf"),
        ({"eps": 0.1, "steps": 3}, "leave out --steps"),
        ({"eps": 0.1, "schedule": "icml"}, "must be eccv"),
    ):
        with pytest.raises(ValueError, match=said):
            attack_profile("QA+", GREY, **{"schedule": "eccv", **words})


def test_large_images_are_attacked_in_the_published_blocks():
    assert attack_profile("SPQA+", (3, 224, 224)).batch == PROFILES["pami224"].batch == 112
    assert attack_profile("SPQA+", GREY).batch == PROFILES["pami28"].batch == 128


def test_a_radius_beyond_the_pixel_range_is_a_mistake():
    with pytest.raises(ValueError, match="Write 8/255"):
        attack_profile("ES", GREY, eps=8.0)


def test_universal_attacks_have_their_own_search():
    profile = attack_profile("QA--universal", GREY, eps=0.1)
    [m] = profile.measurements
    assert m.goal == Agnostic(Query("lower"))
    assert m.adversary == Adversary(Linf(0.1), Universal(100, 2 / 255))
    assert profile.name == "attack-QA--universal-eps25.5"
    [m] = attack_profile("misclassify-universal", GREY).measurements
    assert m.adversary == Adversary(Linf(77 / 255), Pgd(32, 3 / 255, universal=True))


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_name_makes_a_profile_that_survives_its_json(name):
    profile = attack_profile(name, GREY)
    assert profile.name == f"attack-{name}"
    assert profile_from_json(profile_to_json(profile)) == profile


def test_every_attack_is_listed():
    assert list(ATTACKS)[:9] == list(nine_goals(published=True))


def test_profiles_by_name_file_and_callable(tmp_path, monkeypatch):
    assert profile_named("rob28") is PROFILES["rob28"]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(profile_to_json(PROFILES["rob32"])))
    assert profile_named(str(file)) == PROFILES["rob32"]
    (tmp_path / "myprofiles.py").write_text(
        "from robustdml.profile import PROFILES\ndef mine(): return PROFILES['rob224']\n"
    )
    monkeypatch.chdir(tmp_path)
    assert profile_named("myprofiles:mine") is PROFILES["rob224"]
    with pytest.raises(ValueError, match="Did you mean rob28-strict"):
        profile_named("rob28-stric")
