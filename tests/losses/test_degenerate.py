"""Batches from which a loss has little or nothing to learn: every loss, never NaN, always a graph."""

import pytest
import torch

from robustdml.distance import Cosine, Dot, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import (
    LOSSES,
    Gil,
    Hybrid,
    InfoNce,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    NPair,
    Rhomboid,
    Snr,
    Triplet,
)
from robustdml.mining import RandomTriplet
from robustdml.types import Triplets
from tests.toys import generator

BATCHES = {
    "one pair": torch.zeros(2, dtype=torch.long),
    "one class": torch.zeros(8, dtype=torch.long),
    "pairs of distinct classes": torch.arange(4).repeat_interleave(2),
    "unequal classes": torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]),
}
PLACES = {
    "anywhere": lambda n: torch.randn(n, 6, generator=generator()),
    "collapsed": lambda n: torch.ones(n, 6),
    "zero": lambda n: torch.zeros(n, 6),
    "far apart": lambda n: 1e4 * torch.eye(8)[:n],
    "tiny": lambda n: 1e-8 * torch.randn(n, 6, generator=generator()),
}


MADE = [Hybrid(2) if cls is Hybrid else cls() for cls in LOSSES.values()]


@pytest.mark.parametrize("loss", MADE, ids=list(LOSSES))
@pytest.mark.parametrize("labels", BATCHES.values(), ids=list(BATCHES))
@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_value_and_gradient_are_finite(loss, labels, place):
    z = place(len(labels)).requires_grad_()
    built = loss.build(4, z.shape[1])  # with a score for each class in six coordinates
    value = built(z, labels, draws=Draws(0), index=torch.arange(len(labels)))
    weights = [p for group in built.parameter_groups().values() for p in group]
    gradients = torch.autograd.grad(value, [z, *weights])
    assert bool(torch.isfinite(value))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("distance", [Spherical(), Euclidean(), Cosine(), Dot()], ids=repr)
def test_a_margin_loss_with_nothing_active_is_zero_with_a_graph(distance):
    z = torch.tensor([[[1.0, 0.0], [1.0, 1e-3], [-50.0, 0.0]]]).requires_grad_()
    built = Margin(distance, margin=-60.0 if distance == Dot() else -0.01).build(2, 2)
    value = built.on_triplets(z)
    gradients = torch.autograd.grad(value, [z, built.beta])
    assert float(value.detach()) == 0
    assert all(float(g.abs().max()) == 0 for g in gradients)


def test_snr_with_nothing_active_keeps_its_centring_alone():
    z = torch.tensor([[[1.0, -2.0, 3.0], [1.0, -2.0, 3.0], [-3.0, 2.0, -1.0]]], dtype=torch.float64)
    assert bool(~Snr(Euclidean()).active(z).any())
    assert float(Snr(Euclidean()).on_triplets(z)) == pytest.approx(0.005 * 2.0, abs=1e-15)


def test_losses_of_all_pairs_cost_an_anchor_without_negatives_only_its_norm():
    z, labels = torch.randn(4, 3, generator=generator()), torch.zeros(4, dtype=torch.long)
    for loss in (LiftedStructure(), NPair()):
        value = loss(z, labels, draws=Draws(0), index=torch.arange(4))
        assert float(value) == pytest.approx(0.005 * float(z.norm(dim=1).mean()), rel=1e-5)


def test_coincident_negatives_do_not_blow_gil_up():
    z = torch.ones(4, 3, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    for distance in (Cosine(), Spherical(), Euclidean()):
        value = Gil(distance)(z, labels, draws=Draws(0), index=torch.arange(4))
        (gradient,) = torch.autograd.grad(value, z)
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("loss", [Rhomboid(), LiftedStructure(), NPair(), InfoNce()], ids=lambda c: type(c).__name__)
def test_losses_of_pairs_name_a_batch_that_is_none(loss):
    with pytest.raises(ValueError, match=f"{type(loss).__name__} needs batches of pairs.*--batches Spc2"):
        loss(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]), draws=Draws(0), index=torch.arange(4))


def test_miners_of_pairs_are_found_out_on_other_batches():
    z, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"Random found positives of another class.*--loss\.miner RandomTriplet"):
        Triplet()(z, labels, draws=Draws(0), index=torch.arange(4))
    assert torch.isfinite(Triplet(miner=RandomTriplet())(z, labels, draws=Draws(0), index=torch.arange(4)))


def test_losses_of_a_whole_batch_refuse_given_triplets():
    given = Triplets(*torch.tensor([[0], [1], [2]]))
    for loss in (LiftedStructure(), NPair(), MultiSimilarity()):
        with pytest.raises(ValueError, match="cannot keep to the triplets that the data fixes"):
            loss(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), given, draws=Draws(0), index=torch.arange(4))


@pytest.mark.parametrize("loss", [MultiSimilarity, InfoNce])
@pytest.mark.parametrize("distance", [Euclidean(), Dot()], ids=repr)
def test_losses_on_cosines_refuse_distances_that_order_otherwise(loss, distance):
    with pytest.raises(ValueError, match=r"trains cosines, which .*Use Cosine\(\) or Spherical\(\)"):
        loss(distance)
