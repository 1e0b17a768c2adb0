"""Classifiers and hybrids end to end: trained, evaluated and attacked by the same commands as metrics."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks.goals import Candidate, EmbeddingShift, Misclassify, Mismatch
from robustdml.benchmark import benchmark
from robustdml.clean import remarks
from robustdml.cli.main import main
from robustdml.data import Digits
from robustdml.deep_metric import DeepMetric, trained_metric
from robustdml.distance import Dot, Spherical
from robustdml.evaluate import evaluate
from robustdml.losses import CrossEntropy, Hybrid, Triplet
from robustdml.models import C2F2Hybrid
from robustdml.profile import PROFILES, Measurement, Profile
from robustdml.recipe import override
from robustdml.recipes import recipe
from robustdml.runs import build, checkpoint
from robustdml.targets import plan
from robustdml.train import train
from robustdml.types import RunReference
from tests.toys import linear

ATTACK = Adversary(Linf(0.2), Pgd(8, 0.05))
PROFILE = Profile("wrong", (Measurement("GTM", Mismatch(), ATTACK),))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain and an adversarially trained classifier, and a hybrid."""
    folder = tmp_path_factory.mktemp("classifiers")
    plain = replace(recipe("classify-digits-small"), epochs=3)
    robust = override(replace(recipe("pgd-digits-small"), epochs=4), "defense.adversary.ball.eps", "0.2")
    hybrid = replace(
        recipe("plain-digits-small"), name="hybrid", model=C2F2Hybrid(32, 10), loss=Hybrid(32, Triplet()), epochs=1
    )
    return {r.name: train(r, folder / r.name, device="cpu") for r in (plain, robust, hybrid)}


@pytest.fixture(scope="module")
def data():
    return Digits().load()


def metric_of(run, data):
    return checkpoint(run).metric(data.shape, torch.device("cpu"))


def literal_accuracy(scores, labels):
    return float((scores.argmax(dim=1) == labels).double().mean())


def test_accuracy_is_recall_at_1_over_prototypes(runs, data):
    metric = metric_of(runs["classify-digits-small"], data)
    assert torch.equal(metric.prototypes, torch.eye(10))
    assert metric.distance == Dot()
    found = evaluate(metric, data)
    query = data.split.query
    expected = literal_accuracy(metric.embed(data.batch(query)), data.labels[query])
    assert found.scores["accuracy"] == found.scores["recall@1"] == pytest.approx(expected)
    assert found.scores["accuracy"] > 0.9
    assert found.scores["recall@2"] >= found.scores["recall@1"]
    assert set(found.scores) == {"accuracy", "recall@1", "recall@2"}
    assert (found.queries, found.gallery, found.classes, found.lonely) == (360, 10, 10, 0)
    assert found.embedding["effective_rank"] > 2  # of the images, not of the prototypes


def test_robust_accuracy_is_a_mean_over_images(runs, data, tmp_path):
    """Blocks of unequal size weigh by their images."""
    metric = metric_of(runs["classify-digits-small"], data)
    card = benchmark(metric, data, replace(PROFILE, batch=111), tmp_path, queries=150)
    kept = np.load(tmp_path / "benchmark-wrong.npz")["GTM/after/recall@1"]
    assert kept.shape == (150,)
    assert card["attacks"]["GTM"]["after"]["recall@1"] == pytest.approx(kept.mean())
    assert card["attacks"]["GTM"]["before"]["recall@1"] == pytest.approx(card["clean"]["accuracy"])
    assert card["ranks"] == "classes"
    assert (card["gallery"], card["queries"]) == (10, 150)
    assert remarks(card) == []
    assert all(c["ok"] for n, c in card["checks"].items() if n != "zero_gradient"), card["checks"]


def test_adversarial_training_makes_a_classifier_more_robust(runs, data, tmp_path):
    found = {}
    for name in ("classify-digits-small", "pgd-digits-small"):
        card = benchmark(metric_of(runs[name], data), data, PROFILE, tmp_path / name)
        found[name] = card["attacks"]["GTM"]["after"]["recall@1"]
    assert found["pgd-digits-small"] > found["classify-digits-small"] + 0.2


def test_a_hybrid_reports_retrieval_of_its_embedding_and_accuracy_of_its_classes(runs, data):
    metric = metric_of(runs["hybrid"], data)
    z = metric.embed(data.batch(data.split.query))
    labels = data.labels[data.split.query]
    found = evaluate(metric, data)
    assert found.scores["accuracy"] == pytest.approx(literal_accuracy(z[:, 32:], labels))
    assert found.scores["accuracy"] > 0.8
    d = Spherical().matrix(z[:, :32].double(), z[:, :32].double()).fill_diagonal_(torch.inf)
    expected = float((labels[d.argmin(dim=1)] == labels).double().mean())
    assert found.scores["recall@1"] == pytest.approx(expected, abs=0.003)
    assert found.gallery == 360
    assert {"nmi", "map"} < set(found.scores)


def test_the_command_line_measures_a_classifier(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(runs["classify-digits-small"])
    assert main(["evaluate", run, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Accuracy" in out
    assert "gallery has only" not in out
    assert main(["attack", run, "--attack", "GTM", "--steps", "2", "--queries", "32", "--json", "--quiet"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["attacks"]["GTM"]["after"]["recall@1"] <= card["clean"]["accuracy"]
    assert main(["attack", run, "--attack", "GTM", "--dry-run", "--quiet"]) == 0
    assert main(["report", run, "--out", "page.html", "--quiet"]) == 0
    assert main(["compare", run]) == 0


def test_training_a_classifier_logs_accuracy(runs):
    lines = (runs["classify-digits-small"] / "log.jsonl").read_text().splitlines()
    accuracies = [json.loads(line)["accuracy"] for line in lines]
    assert accuracies[0] < accuracies[-1] <= 1


def test_other_data_than_its_classes_is_refused(data):
    metric = trained_metric(linear(4, (1, 8, 8)).float(), CrossEntropy())
    with pytest.raises(ValueError, match="digits has classes up to 9 and the model scores 4 of them"):
        evaluate(metric, data)


def test_a_metric_that_ranks_classes_needs_prototypes():
    with pytest.raises(ValueError, match="DeepMetric ranks classes by prototypes, got none"):
        DeepMetric(linear(), Dot(), ranks="classes")


def test_validation_chooses_by_accuracy(tmp_path):
    base = replace(recipe("classify-digits-small"), epochs=2)
    chosen = override(override(base, "validation.share", "0.2"), "validation.choose", "true")
    run = train(chosen, tmp_path / "run", device="cpu")
    best = json.loads((run / "checkpoints" / "best" / "chosen.json").read_text())
    assert 0.5 < best["value"] <= 1


def test_a_target_with_a_hybrid_recipe_ranks_its_gallery(runs):
    target = plan(str(runs["hybrid"])).load()
    assert target.metric.ranks == "gallery"
    assert target.metric.prototypes.shape == (10, 42)


def test_a_built_hybrid_is_reproducible():
    a, b = (build(recipe("fashion:hc2f2:ptripletN"), (1, 28, 28)).state_dict() for _ in range(2))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_the_class_profile_attacks_the_class_scores_of_classifiers_and_hybrids(runs, data, tmp_path):
    """After the attack no more are right than literal predictions on the attacked images say."""
    profile = PROFILES["class28"]
    tenth = [Adversary(Linf(0.1), replace(m.adversary.search, step_size=0.1)) for m in profile.measurements]
    attacks = tuple(replace(m, adversary=a) for m, a in zip(profile.measurements, tenth, strict=True))
    small = replace(profile, measurements=attacks)
    for name in ("classify-digits-small", "hybrid"):
        metric = metric_of(runs[name], data)
        card = benchmark(metric, data, small, tmp_path / name, queries=64)
        assert (card["ranks"], card["gallery"]) == ("classes", 10)
        clean = card["clean"]["accuracy"]
        after = {m: a["after"]["recall@1"] for m, a in card["attacks"].items()}
        assert set(after) == {"misclassify", "misclassify-fgsm", "misclassify-next"}
        assert after["misclassify"] <= after["misclassify-fgsm"] < clean
        literal = literal_accuracy(metric.embed(data.batch(data.split.query))[:, -10:], data.labels[data.split.query])
        assert clean == pytest.approx(literal, abs=0.1)  # of 64 of 360
    single = profile.measurements[1].adversary
    assert (single.search.steps, single.search.step_size) == (1, single.ball.eps)


def test_a_metric_without_classes_has_no_class_scores_to_attack(data, tmp_path):
    metric = DeepMetric(linear(shape=data.shape).float(), Spherical())
    with pytest.raises(ValueError, match="one prototype per class"):
        benchmark(metric, data, PROFILES["class28"], tmp_path, queries=8)
    with pytest.raises(ValueError, match="class28"):
        PROFILES["class224"].check_images(data.shape)


def test_the_command_line_attacks_the_classes_of_a_hybrid(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(runs["hybrid"])
    words = ["--steps", "2", "--queries", "32", "--json", "--quiet", "--out", "out"]
    assert main(["attack", run, "--attack", "misclassify", *words]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["ranks"] == "classes"
    assert card["attacks"]["misclassify"]["after"]["recall@1"] <= card["clean"]["accuracy"]
    assert main(["attack", run, "--attack", "ES", *words]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == "gallery"


def test_a_surrogate_must_rank_what_the_target_ranks(runs, data, tmp_path):
    """Else its energy is about other items: classes of one, images of the other."""
    classifier, hybrid = runs["classify-digits-small"], runs["hybrid"]
    for target, other, name in ((classifier, hybrid, "ES"), (hybrid, classifier, "CA+")):
        goal = {"ES": EmbeddingShift(), "CA+": Candidate("raise")}[name]
        profile = Profile("t", (Measurement(name, goal, ATTACK, surrogate=RunReference(str(other))),))
        with pytest.raises(ValueError, match="Use a surrogate of the same task"):
            benchmark(metric_of(target, data), data, profile, tmp_path, queries=4)
    both = Profile("c", (Measurement("misclassify", Misclassify(), ATTACK, surrogate=RunReference(str(hybrid))),))
    card = benchmark(metric_of(classifier, data), data, both, tmp_path, queries=32)
    assert card["ranks"] == "classes"
    assert card["attacks"]["misclassify"]["after"]["recall@1"] <= card["clean"]["accuracy"]
