"""Losses on triplets against their equations."""

import pytest
import torch
from torch import nn

from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import LOSSES, Contrastive, Triplet
from robustdml.losses.tuples import mean_of_active, mine
from robustdml.mining import Hardest, SemiHard
from robustdml.types import Triplets
from tests.toys import blobs, generator, linear

DISTANCES = [Spherical(), Euclidean(), Cosine()]
OF_TRIPLETS = [c for c in LOSSES.values() if "on_triplets" in vars(c)]
INDEX = torch.arange(8)
LABELS = torch.arange(4).repeat_interleave(2)


def some(*shape):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize("distance", DISTANCES, ids=repr)
@pytest.mark.parametrize("margin", [None, 0.0, 0.7])
def test_triplet_is_the_mean_hinge_of_the_hardness(distance, margin):
    z, loss = some(9, 3, 5), Triplet(distance, margin=0.3)
    used = 0.3 if margin is None else margin
    hinges = [
        max(0.0, float(distance.pairs(a, p) - distance.pairs(a, n)) + used) for a, p, n in (t[:, None] for t in z)
    ]
    assert 0 < sum(h > 0 for h in hinges) < 9
    assert float(loss.on_triplets(z, margin)) == pytest.approx(sum(hinges) / 9, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES, ids=repr)
@pytest.mark.parametrize("margin", [None, 0.5])
def test_contrastive_pulls_every_pair_and_pushes_those_inside_the_margin(distance, margin):
    z, loss = some(9, 3, 5), Contrastive(distance, margin=1.1)
    used = 1.1 if margin is None else margin
    pulls = [float(distance.pairs(t[:1], t[1:2])) for t in z]
    pushes = [used - float(distance.pairs(t[:1], t[2:])) for t in z]
    active = [p for p in pushes if p > 0]
    expected = sum(pulls) / 9 + (sum(active) / len(active) if active else 0)
    assert float(loss.on_triplets(z, margin)) == pytest.approx(expected, abs=1e-12)


def test_the_mean_of_active_entries_leaves_zeros_out():
    assert float(mean_of_active(torch.tensor([-1.0, 0.0, 2.0, 4.0]))) == 3


def test_nothing_active_is_zero_with_a_graph():
    h = torch.tensor([-1.0, -2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_of_active(h), h)
    assert gradient.tolist() == [0, 0]


@pytest.mark.parametrize("loss", OF_TRIPLETS, ids=lambda c: c.__name__)
def test_given_triplets_are_used_instead_of_mining(loss):
    class Refusing:
        def __call__(self, z, labels, distance, *, draws, index):
            raise AssertionError("mined although triplets were given")

    z = some(8, 5)
    t = Triplets(torch.tensor([0, 3]), torch.tensor([1, 2]), torch.tensor([5, 6]))
    found = loss(miner=Refusing())(z, LABELS, t, draws=Draws(0), index=INDEX)
    assert float(found) == float(loss().on_triplets(torch.stack([z[[0, 3]], z[[1, 2]], z[[5, 6]]], dim=1)))


@pytest.mark.parametrize("loss", OF_TRIPLETS, ids=lambda c: c.__name__)
def test_without_triplets_the_loss_is_that_of_the_mined_ones(loss):
    z, configured = some(8, 5).requires_grad_(), loss(miner=Hardest())
    t = mine(configured, z, LABELS, draws=Draws(0), index=INDEX)
    found = configured(z, LABELS, draws=Draws(0), index=INDEX)
    assert float(found.detach()) == float(configured.on_triplets(torch.stack(t.of(z.detach()), dim=1)))


@pytest.mark.parametrize("loss", OF_TRIPLETS, ids=lambda c: c.__name__)
def test_gradient_reaches_all_three_roles(loss):
    z = some(1, 3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(margin=5.0).on_triplets(z), z)
    assert bool((gradient.abs().amax(dim=2) > 0).all())


@pytest.mark.parametrize("loss", OF_TRIPLETS, ids=lambda c: c.__name__)
def test_a_collapsed_batch_has_a_finite_loss_and_gradient(loss):
    z = torch.ones(8, 5, requires_grad=True)
    value = loss()(z, LABELS, draws=Draws(0), index=INDEX)
    (gradient,) = torch.autograd.grad(value, z)
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(gradient).all())


def test_full_collapse_costs_a_triplet_loss_its_margin():
    z = torch.ones(4, 3, 5, dtype=torch.float64)
    assert float(Triplet(margin=0.2).on_triplets(z)) == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize("loss", OF_TRIPLETS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("distance", DISTANCES, ids=repr)
def test_a_few_steps_lower_the_loss(loss, distance):
    images, labels = blobs(4, 2)
    embedder, configured = linear(), loss(distance, SemiHard() if loss is Triplet else Hardest())
    nn.init.normal_(embedder.layers[1].weight, std=0.1, generator=generator(1))
    optimiser = torch.optim.Adam(embedder.parameters(), lr=0.02)
    values = []
    for _ in range(25):
        value = configured(embedder(images), labels, draws=Draws(0), index=INDEX)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
