"""Benchmarks: invariances, resuming, intervals and what the scorecard says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustdml.adversary import L2, Adversary, Linf, Pgd
from robustdml.attacks.goals import Candidate, EmbeddingShift, Mismatch, Misrank, Order, PreservingQuery
from robustdml.benchmark import benchmark, stage
from robustdml.clean import remarks
from robustdml.curves import BUDGETS, with_budget, write_curve, write_examples
from robustdml.data.digits import Digits
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Cosine, Dot, Euclidean, Spherical
from robustdml.interruption import Interrupted
from robustdml.models import SmallConv
from robustdml.profile import PROFILES, Measurement, Profile, nine_goals, profile_from_json, profile_to_json
from robustdml.score import COMPONENTS, ers, normalised
from robustdml.scorecard import bootstrap

TIMES = ("cost", "provenance")
BALL = Linf(0.1)


def metric():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepMetric(SmallConv(dim=8, width=4).build((1, 8, 8)).eval(), Spherical())


def profile(batch=40, ball=BALL):
    goals = {**nine_goals(True), "GTM-corrected": nine_goals(False)["GTM"]}
    return Profile("small", tuple(Measurement(n, g, Adversary(ball, Pgd(3, 0.05))) for n, g in goals.items()), batch)


def without_times(card):
    kept = {k: v for k, v in card.items() if k not in TIMES}
    kept["attacks"] = {n: {k: v for k, v in a.items() if k != "seconds"} for n, a in card["attacks"].items()}
    return kept


def run(out, **options):
    return benchmark(metric(), Digits().load(), options.pop("profile", profile()), out, queries=90, **options)


def test_an_interrupted_benchmark_continues_to_the_same_scorecard(tmp_path):
    whole = run(tmp_path / "whole")
    seen = []

    def stop_soon(done, total, what):
        seen.append(what)
        if len(seen) == 13:
            raise Interrupted("stopped by the test")

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", progress=stop_soon)
    assert not (tmp_path / "cut" / "benchmark-small.json").exists()
    taken = []
    resumed = run(tmp_path / "cut", progress=lambda done, total, what: taken.append(what))
    assert len(taken) - 1 == 30 - 12
    assert without_times(resumed) == without_times(whole)
    assert not (tmp_path / "cut" / "units").exists()


def test_the_batch_of_a_profile_does_not_change_who_is_aimed_at(tmp_path):
    for batch in (40, 90):
        run(tmp_path / str(batch), profile=profile(batch))
    a, b = (np.load(tmp_path / str(n) / "benchmark-small.npz") for n in (40, 90))
    for name in a.files:
        if name.endswith("/aims"):
            assert np.array_equal(a[name], b[name]), name
    assert np.array_equal(a["queries"], b["queries"])


def test_units_of_other_settings_are_not_mixed_in(tmp_path):
    first = run(tmp_path)
    other = run(tmp_path, seed=1)
    assert first["seed"] != other["seed"]
    assert without_times(first) != without_times(other)


def test_the_scorecard_is_complete_and_adds_up(tmp_path):
    card = run(tmp_path)
    assert set(card["attacks"]) == {m.name for m in profile().measurements}
    components = {n: v for a in card["attacks"].values() for n, v in a["component"].items()}
    assert list(components) == list(COMPONENTS)
    assert card["ers"] == pytest.approx(ers(components))
    low, high = card["ers_interval"]
    assert low <= card["ers"] <= high
    for name in ("clean", "worst_case_recall@1", "queries", "gallery", "classes", "distance", "embedding", "flags"):
        assert name in card
    assert card["queries"] == 90
    assert card["gallery"] == 360
    assert card["cost"]["forward"] > card["cost"]["backward"] > 0
    per_query = np.load(tmp_path / "benchmark-small.npz")
    assert per_query["ES/after/recall@1"].mean() == pytest.approx(card["attacks"]["ES"]["after"]["recall@1"])
    assert card == json.loads((tmp_path / "benchmark-small.json").read_text())


def test_worst_case_is_below_each_of_its_attacks(tmp_path):
    card = run(tmp_path)
    each = [card["attacks"][n]["after"]["recall@1"] for n in ("ES", "LTM", "GTM-corrected")]
    assert card["worst_case_recall@1"] <= min(each)
    low, high = card["worst_case_interval"]
    assert 0 <= low <= card["worst_case_recall@1"] <= high <= min(1, min(each) + 0.2)
    low, high = card["clean_interval"]["recall@1"]
    assert low <= card["clean"]["recall@1"] <= high


def test_the_worst_case_counts_every_run_of_a_goal(tmp_path):
    weak, strong = (Adversary(Linf(0.1), Pgd(steps, 0.03)) for steps in (2, 6))
    goals = {"ES": EmbeddingShift(), "LTM": Misrank(), "GTM": Mismatch()}
    runs = [Measurement(f"{n} {i}", goal, a) for n, goal in goals.items() for i, a in enumerate((weak, strong))]
    card = run(tmp_path, profile=Profile("twice", tuple(runs)))
    each = np.load(tmp_path / "benchmark-twice.npz")
    survived = np.min([each[f"{m.name}/after/recall@1"] for m in runs], axis=0)
    assert card["worst_case_recall@1"] == pytest.approx(survived.mean())
    assert card["ers"] is None
    some = run(tmp_path / "some", profile=Profile("some", tuple(runs[:4])))
    assert some["worst_case_recall@1"] is None  # GTM was not run


def test_the_l2_ball_serves_every_attack(tmp_path):
    card = run(tmp_path, profile=profile(ball=L2(0.5)))
    assert not [f for f in card["flags"] if f["name"] == "budget"]
    assert card["threat_model"]["norm"] == "l2"


def test_more_queries_than_there_are_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be 1 … 360"):
        stage(metric(), Digits().load(), queries=361)


def test_a_profile_survives_its_json():
    for own in PROFILES.values():
        assert profile_from_json(json.loads(json.dumps(profile_to_json(own)))) == own


def test_published_profiles_hold_the_published_budget_and_targets():
    own = PROFILES["rob28"]
    for m in own.measurements:
        assert (m.adversary.ball, m.adversary.search) == (Linf(77 / 255), Pgd(32, 3 / 255))
    assert own.published
    assert not PROFILES["rob28-strict"].published
    for name in ("rob224", "rob32"):
        assert PROFILES[name].measurements[0].adversary == Adversary(Linf(8 / 255), Pgd(32, 3 / 255))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measurements": []}, "lists no attack"),
        ({"batch": 0}, "batch >= 1"),
        ({"batsh": 3}, "Did you mean batch"),
        ({"measurements": [{"type": "Measurment"}]}, "Did you mean Measurement"),
    ],
)
def test_a_wrong_profile_file_is_answered_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        profile_from_json(profile_to_json(profile()) | change)


def test_ers_of_the_best_and_the_worst_raw_numbers():
    best = dict(zip(COMPONENTS, (50, 0, 50, 0, 0, 0, 100, 100, 100, 100), strict=True))
    worst = dict(zip(COMPONENTS, (0, 100, 0, 100, 1, 2, 0, 0, 0, 0), strict=True))
    assert ers({n: normalised(n, v) for n, v in best.items()}) == 100
    assert ers({n: normalised(n, v) for n, v in worst.items()}) == 0
    with pytest.raises(ValueError, match="GTT missing"):
        ers({n: 0.0 for n in COMPONENTS if n != "GTT"})


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        low, high = bootstrap(generator.normal(size=200), seed)
        covered += low <= 0 <= high
    assert 85 <= covered <= 100
    assert np.isnan(bootstrap(np.array([np.nan]), 0)).all()


def test_a_curve_begins_clean_and_ends_at_the_profile(tmp_path):
    ready = stage(metric(), Digits().load(), queries=40)
    curve = write_curve(ready, profile(), tmp_path, name="toy")
    assert len(curve["eps"]) == len(BUDGETS) >= 6
    assert curve["eps"][0] == 0
    assert curve["eps"][-1] == pytest.approx(0.1)
    clean = ready.evaluate().scores["recall@1"]
    for recalls in curve["recall@1"].values():
        assert recalls[0] == pytest.approx(clean)
    whole = benchmark(metric(), Digits().load(), profile(), tmp_path, queries=40)
    assert curve["ers"][-1] == pytest.approx(whole["ers"], abs=1e-6)


def test_steps_shrink_with_the_budget():
    half = with_budget(Adversary(Linf(0.2), Pgd(4, 0.1)), 0.5)
    assert (half.ball.eps, half.search.step_size) == (0.1, 0.05)


def test_examples_point_at_the_right_images(tmp_path):
    data = Digits().load()
    ready = stage(metric(), data, queries=40)
    with np.load(write_examples(ready, profile(), tmp_path, 3)) as found:
        images, index = found["images"], found["image_index"]
        stored = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(stored, data.batch(torch.from_numpy(index)), atol=0.51 / 255, rtol=0)
        assert np.array_equal(found["image_label"], data.labels[torch.from_numpy(index)].numpy())
        for name in found["attacks"]:
            before, query = found[f"{name}/before"], found[f"{name}/query"]
            assert before.shape == (3, 5)
            assert not (before == query[:, None]).any()
            moved = np.abs(found[f"{name}/adversarial"] - images[query] / 255).max()
            assert moved <= 0.1 + 1 / 255
    with pytest.raises(ValueError, match="at least 1"):
        write_examples(ready, profile(), tmp_path, 0)


def test_pieces_of_another_distance_are_never_taken_for_ones_own(tmp_path):
    def stop_late(done, total, what):
        if done == 8:
            raise Interrupted("stopped by the test")

    with pytest.raises(Interrupted):
        run(tmp_path / "shared", progress=stop_late)
    cosine = DeepMetric(metric().embedder, Cosine())
    mixed = benchmark(cosine, Digits().load(), profile(), tmp_path / "shared", queries=90)
    alone = benchmark(cosine, Digits().load(), profile(), tmp_path / "alone", queries=90)
    assert without_times(mixed) == without_times(alone)


@pytest.mark.parametrize("distance", [Dot(), Euclidean()], ids=repr)
def test_a_distance_without_a_bound_gets_no_ers_and_no_false_flag(tmp_path, distance):
    card = benchmark(DeepMetric(metric().embedder, distance), Digits().load(), profile(), tmp_path, queries=40)
    assert card["ers"] is None
    assert "saturation" not in {f["name"] for f in card["flags"]}
    assert card["embedding"]["spread"] > 0.1


def test_the_interval_averages_what_the_score_averages():
    """A query without another item of its class has no recall, and still counts for the other components."""
    values = np.array([[30.0, 30.0, 30.0], [60.0, np.nan, 60.0]])
    low, high = bootstrap(values, 0)
    assert low == high == 45.0


def test_a_profile_of_python_has_the_kappa_of_its_data_set(tmp_path):
    goal = PreservingQuery("raise")
    some = Profile("sp", (Measurement("SPQA+", goal, Adversary(BALL, Pgd(1, 0.05))),))
    data = replace(Digits().load(), name="mnist")
    card = benchmark(metric(), data, some, tmp_path, queries=4)
    assert card["attacks"]["SPQA+"]["goal"]["weight"]["kappa"] == 2e4


def test_a_small_gallery_lengthens_the_head_and_says_so(tmp_path):
    goals = {"SPQA-": PreservingQuery("lower"), "CA-": Candidate("lower"), "ES": nine_goals(False)["ES"]}
    some = Profile("head", tuple(Measurement(n, g, Adversary(BALL, Pgd(1, 0.05))) for n, g in goals.items()))
    card = benchmark(metric(), Digits().load(), some, tmp_path, queries=4)
    assert card["attacks"]["SPQA-"]["head"] == 6
    assert "head" not in card["attacks"]["CA-"]  # 1 % of 360 is 3
    assert "head" not in card["attacks"]["ES"]
    assert any("too few for the targets of SPQA-:" in line for line in remarks(card))


@pytest.mark.parametrize("distance", [Euclidean(), Dot()], ids=repr)
def test_an_unbounded_shift_is_a_length_and_no_component(tmp_path, distance):
    card = benchmark(replace(metric(), distance=distance), Digits().load(), profile(), tmp_path, queries=20)
    es = card["attacks"]["ES"]
    assert set(es["component"]) == {"ES:R"}
    assert es["before"]["shift"] == 0 < es["after"]["shift"]


def test_orders_that_stand_already_are_not_taken_for_dead_gradients(tmp_path):
    """One in six random orders of three candidates is the wanted one."""
    some = Profile("order", (Measurement("FOA", Order(3), Adversary(BALL, Pgd(2, 0.05))),))
    card = benchmark(metric(), Digits().load(), some, tmp_path, queries=128)
    assert card["checks"]["zero_gradient"]["ok"], card["checks"]["zero_gradient"]


def test_a_result_says_what_its_attacks_are(tmp_path):
    card = run(tmp_path)
    assert card["attacks"]["ES"]["what"].startswith("ES: -d(e, e_0), untargeted")
    assert all(entry["what"] for entry in card["attacks"].values())
