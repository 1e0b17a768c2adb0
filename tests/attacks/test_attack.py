"""Transfer attacks: whose gradients, whose gallery, whose scores."""

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Nes, Pgd
from robustdml.attacks import Attack, Surrogate
from robustdml.attacks.goals import Candidate, EmbeddingShift, Query, TargetedMismatch
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Cosine, Spherical
from robustdml.draws import Draws
from robustdml.types import RunReference
from tests.attacks.test_goals import INSTANCES, ROWS
from tests.toys import blobs, linear, network, scene_of, unchanged

OTHER = RunReference("runs/other")
PGD = Adversary(Linf(0.2), Pgd(8, 0.05))


def stages(embedder, distance=Spherical()):  # noqa: B008 (frozen)
    images, labels = blobs()
    target, scene = scene_of(linear(), Spherical(), images, labels, ROWS)
    other, seen = scene_of(embedder, distance, images, labels, ROWS)
    return target, scene, images[ROWS], Surrogate(other, seen)


def run(attack, target, scene, images, surrogate=None):
    return attack(target, scene, images, draws=Draws(0), index=ROWS, surrogate=surrogate)


@pytest.mark.parametrize("goal", INSTANCES, ids=repr)
@pytest.mark.parametrize("gallery", ["surrogate", "target"])
def test_a_surrogate_that_is_the_target_changes_nothing(goal, gallery):
    target, scene, images, surrogate = stages(linear())
    direct = run(Attack(goal, PGD), target, scene, images)
    transferred = run(Attack(goal, PGD, OTHER, gallery), target, scene, images, surrogate)
    torch.testing.assert_close(transferred.images, direct.images, atol=1e-12, rtol=0)
    for name, values in direct.after.items():
        torch.testing.assert_close(transferred.after[name], values, equal_nan=True, atol=1e-12, rtol=0)


@pytest.mark.parametrize("goal", INSTANCES, ids=repr)
def test_every_goal_transfers_from_a_network_of_another_size(goal):
    target, scene, images, surrogate = stages(linear(dim=9, seed=3), Cosine())
    outcome = run(Attack(goal, PGD, OTHER), target, scene, images, surrogate)
    assert torch.equal(outcome.aims, goal.choose(scene, draws=Draws(0), index=ROWS))
    assert float((outcome.images - images).abs().max()) <= 0.2 + 1e-12
    energy, unit = goal.energy(surrogate.scene, outcome.aims), torch.arange(5)
    moved = energy(surrogate.metric.embed(outcome.images), unit, 1).sum()
    assert float(moved) < float(energy(surrogate.scene.clean, unit, 1).sum())
    own = goal.score(scene, outcome.aims)(target.embed(outcome.images))
    for name, values in own.items():
        assert torch.equal(outcome.after[name].nan_to_num(), values.nan_to_num())


def test_a_transferred_attack_is_weaker_than_a_direct_one():
    target, scene, images, surrogate = stages(linear(seed=3))
    direct = run(Attack(Query("raise"), PGD), target, scene, images).after["prank"].mean()
    transferred = run(Attack(Query("raise"), PGD, OTHER), target, scene, images, surrogate)
    assert float(direct) < float(transferred.after["prank"].mean())


def test_robranks_form_compares_the_two_networks():
    target, scene, images, surrogate = stages(linear(seed=3))
    aims = TargetedMismatch().choose(scene, draws=Draws(0), index=ROWS)
    found = run(Attack(TargetedMismatch(), PGD, OTHER, "target"), target, scene, images, surrogate).images
    energy = TargetedMismatch().energy(scene, aims)
    expected = PGD(surrogate.metric.embedder, images, energy, draws=Draws(0), index=ROWS)
    assert torch.equal(found, expected)


def test_it_needs_embeddings_of_one_size_only_where_they_are_compared():
    target, scene, images, surrogate = stages(linear(dim=9))
    with pytest.raises(ValueError, match=r"runs/other embeds into 9 dimensions and the attacked.* 6.*own gallery"):
        run(Attack(EmbeddingShift(), PGD, OTHER, "target"), target, scene, images, surrogate)
    run(Attack(EmbeddingShift(), PGD, OTHER), target, scene, images, surrogate)


def test_a_surrogate_that_was_not_loaded_is_asked_for():
    target, scene, images, _ = stages(linear())
    with pytest.raises(ValueError, match=r"the surrogate runs/other, which has not been loaded"):
        run(Attack(EmbeddingShift(), PGD, OTHER), target, scene, images)


def test_a_black_box_transfer_leaves_both_networks_as_they_were():
    images, labels = blobs()
    embedder = network()
    metric = DeepMetric(linear(), Spherical())
    target, scene = scene_of(metric.embedder, Spherical(), images, labels, ROWS)
    other, seen = scene_of(embedder, Spherical(), images, labels, ROWS)
    check = unchanged(embedder)
    adversary = Adversary(Linf(0.2), Nes(3, 10))
    run(Attack(Candidate("raise"), adversary, OTHER), target, scene, images[ROWS], Surrogate(other, seen))
    check()
