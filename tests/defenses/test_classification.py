"""Adversarial training of classifiers."""

import pytest
import torch

from robustdml.adversary import L2, Adversary, Linf, Pgd
from robustdml.defenses import AdversarialTraining
from robustdml.distance import Spherical
from robustdml.draws import Draws
from robustdml.energies import cross_entropy, raised_loss
from robustdml.losses import CrossEntropy, Hybrid, InfoNce, MultiSimilarity, Pml, Triplet
from robustdml.recipe import Recipe
from robustdml.types import Batch
from tests.toys import blobs, linear, network, unchanged

PGD = Adversary(Linf(0.1), Pgd(5, 0.03))


def batch(classes=5):
    images, labels = blobs(classes, 4)
    return Batch(images, labels, torch.arange(len(images)))


def step(defense, embedder, loss, some):
    return defense(embedder, loss, some, memory={}, progress=0.0, draws=Draws(0), mean=lambda v: v)


def clean(embedder, loss, some):
    return float(loss(embedder(some.images), some.labels, draws=Draws(0), index=some.index).detach())


@pytest.mark.parametrize(
    "adversary",
    [PGD, Adversary(L2(0.5), Pgd(5, 0.2)), Adversary(Linf(0.1), Pgd(1, 0.1)), Adversary(L2(0.5), Pgd(1, 0.5))],
    ids=["linf", "l2", "linf-one-step", "l2-one-step"],
)
def test_it_trains_on_images_with_a_higher_loss_in_the_ball(adversary):
    seen = []
    embedder, some = linear(5), batch()
    embedder.register_forward_hook(lambda m, i, o: seen.append(i[0].detach()))
    found = step(AdversarialTraining(adversary), embedder, CrossEntropy(), some)
    assert float(found.loss.detach()) > clean(embedder, CrossEntropy(), some) + 0.1
    trained = seen[adversary.search.steps]
    assert float(adversary.ball.norm(trained - some.images).max()) <= adversary.ball.eps + 1e-12
    assert 0 <= float(trained.min()) <= float(trained.max()) <= 1
    found.loss.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in embedder.parameters())


def test_one_step_on_a_linear_network_is_the_sign_of_the_gradient():
    embedder, some = linear(5), batch()
    x = some.images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(embedder(x), some.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    expected = (some.images + 0.1 * gradient.sign()).clamp(0, 1)
    seen = []
    embedder.register_forward_hook(lambda m, i, o: seen.append(i[0].detach()))
    step(AdversarialTraining(Adversary(Linf(0.1), Pgd(1, 0.1))), embedder, CrossEntropy(), some)
    torch.testing.assert_close(seen[-1], expected)


def test_a_benign_share_mixes_the_losses_of_clean_and_adversarial_images():
    embedder, some = linear(5), batch()
    alone, mixed = (step(AdversarialTraining(PGD, share), embedder, CrossEntropy(), some) for share in (0.0, 0.3))
    expected = 0.3 * clean(embedder, CrossEntropy(), some) + 0.7 * float(alone.loss.detach())
    assert float(mixed.loss.detach()) == pytest.approx(expected, abs=1e-6)
    assert mixed.logs["clean loss"] == pytest.approx(clean(embedder, CrossEntropy(), some), abs=1e-6)
    with pytest.raises(ValueError, match="benign share in"):
        AdversarialTraining(PGD, 1.0)


def test_the_search_leaves_modes_weights_and_statistics_alone():
    embedder, some = network(5), batch()
    check = unchanged(embedder)
    PGD(embedder, some.images, cross_entropy(torch.eye(5).double(), some.labels), draws=Draws(0), index=some.index)
    check()


def test_the_energy_is_minus_the_cross_entropy_of_each_unit():
    z, labels = torch.randn(3, 5).double(), torch.tensor([4, 2])
    unit = torch.tensor([1, 0, 1])
    found = cross_entropy(torch.eye(5).double(), labels)(z, unit, 0)
    expected = torch.stack([z[i].log_softmax(0)[labels[unit[i]]] for i in range(3)])
    torch.testing.assert_close(found, expected)


def test_a_hybrid_is_attacked_at_its_class_scores():
    some = batch()
    embedder = linear(8)
    found = step(AdversarialTraining(PGD), embedder, Hybrid(3), some)
    assert float(found.loss.detach()) > clean(embedder, Hybrid(3), some)


def test_what_the_loss_saw_is_told_and_what_was_remembered_is_handed_on():
    some, memory = batch(), {"x": torch.ones(1)}
    defense = AdversarialTraining(PGD)
    found = defense(linear(5), CrossEntropy(), some, memory=memory, progress=0.0, draws=Draws(0), mean=lambda v: v)
    assert torch.equal(found.labels, some.labels)
    again = CrossEntropy()(found.z, found.labels, draws=Draws(0), index=some.index)
    torch.testing.assert_close(again, found.loss)
    assert found.memory is memory


def test_a_loss_that_chooses_triplets_is_refused_when_the_recipe_is_made():
    from robustdml.data import Digits
    from robustdml.models import SmallConv

    with pytest.raises(ValueError, match="and Triplet chooses triplets, other ones whenever images have moved"):
        Recipe("none", Digits(), SmallConv(), Triplet(Spherical()), AdversarialTraining(PGD))


@pytest.mark.parametrize(
    "loss",
    [MultiSimilarity(), InfoNce(), Pml("NormalizedSoftmaxLoss")],
    ids=lambda it: it.name if isinstance(it, Pml) else type(it).__name__,
)
def test_the_loss_of_a_batch_is_raised_within_the_ball(loss):
    embedder, some = linear(5), batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss = loss.build(5, 5)
    if isinstance(loss, torch.nn.Module):
        loss.double()
    before = clean(embedder, loss, some)
    found = step(AdversarialTraining(PGD), embedder, loss, some)
    assert float(found.loss.detach()) > before + 0.01
    found.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in embedder.parameters())


def test_the_energy_of_a_batch_is_minus_its_loss_in_equal_parts():
    z = torch.randn(6, 3).double()
    found = raised_loss(lambda z, rows: (z[:, 0] * rows).sum())(z, torch.arange(6), 0)
    torch.testing.assert_close(found, -(z[:, 0] * torch.arange(6)).sum().expand(6) / 6)
