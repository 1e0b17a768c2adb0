"""Cross-entropy, alone and beside a metric loss."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from robustdml.distance import Cosine, Dot, Leading, Spherical
from robustdml.draws import Draws
from robustdml.losses import ClassLoss, CrossEntropy, Hybrid, Triplet, TripletLoss, prototypes
from robustdml.types import Triplets
from tests.toys import generator

LABELS = torch.arange(4).repeat_interleave(2)


def some(dim):
    return torch.randn(8, dim, generator=generator(), dtype=torch.float64)


def value(loss, z, triplets=None):
    return loss(z, LABELS, triplets, draws=Draws(0), index=torch.arange(8))


def literal(scores):
    return -sum(float(s.log_softmax(0)[y]) for s, y in zip(scores, LABELS)) / len(LABELS)


def test_cross_entropy_is_its_definition():
    z = some(4)
    assert float(value(CrossEntropy(), z)) == pytest.approx(literal(z), abs=1e-12)


def test_a_hybrid_is_the_sum_of_both_losses_each_on_its_own_coordinates():
    z, triplets = some(7), Triplets(*torch.tensor([[0, 1, 2], [2, 3, 4], [6, 7, 0]]).T)
    loss = Hybrid(3, Triplet(Cosine()))
    expected = float(value(Triplet(Cosine()), z[:, :3], triplets)) + literal(z[:, 3:])
    assert float(value(loss, z, triplets)) == pytest.approx(expected, abs=1e-12)
    assert loss.distance == Leading(3, Cosine())
    a, b = some(7), some(7).flip(0)
    assert torch.equal(loss.distance.matrix(a, b), Cosine().matrix(a[:, :3], b[:, :3]))


@pytest.mark.parametrize("loss", [CrossEntropy(), Hybrid(3)], ids=repr)
def test_class_scores_are_inner_products_with_prototypes(loss):
    z = some(7)
    torch.testing.assert_close(-Dot().matrix(z, prototypes(loss, z)), loss.class_scores(z))
    assert isinstance(loss, ClassLoss)
    assert not isinstance(loss, TripletLoss)


def test_a_loss_without_classes_is_none():
    assert not isinstance(Triplet(), ClassLoss)


@dataclass(frozen=True)
class Learnable:
    """A metric loss that has weights once built."""

    distance: Spherical = field(default_factory=Spherical)

    def __call__(self, z, labels, triplets=None, *, draws, index):
        raise AssertionError("not built")

    def build(self, num_classes, dim):
        return Built(num_classes, dim)

    def parameter_groups(self):
        return {}


class Built(nn.Module):
    def __init__(self, num_classes, dim):
        super().__init__()
        self.distance = Spherical()
        self.proxies = nn.Parameter(torch.ones(num_classes, dim, dtype=torch.float64))

    def forward(self, z, labels, triplets=None, *, draws, index):
        return (z - self.proxies[labels]).square().mean()

    def build(self, num_classes, dim):
        return self

    def parameter_groups(self):
        return {"proxies": [self.proxies]}


def test_weights_of_the_metric_are_saved_and_trained_with_the_hybrid():
    loss = Hybrid(3, Learnable()).build(4, 7)
    assert isinstance(loss, nn.Module)
    assert isinstance(loss, ClassLoss)
    assert [tuple(t.shape) for t in loss.state_dict().values()] == [(4, 3)]
    (weight,) = loss.parameter_groups()["proxies"]
    z = some(7)
    found = value(loss, z)
    assert float(found.detach()) == pytest.approx(float((z[:, :3] - 1).square().mean()) + literal(z[:, 3:]))
    found.backward()
    assert float(weight.grad.abs().sum()) > 0
    assert (loss.distance, loss.ranks) == (Leading(3, Spherical()), "gallery")


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match=r"gives 3 class scores for 4 classes.*--model\.num_classes"):
        CrossEntropy().build(4, 3)
    with pytest.raises(ValueError, match="gives 3 class scores for 4 classes"):
        Hybrid(5).build(4, 8)
    with pytest.raises(ValueError, match="label 3 has no score: the model gives 2"):
        value(CrossEntropy(), some(2))
