"""A clean loss beside any defense."""

from dataclasses import replace

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import AntiCollapse, Benign, Gradual, HardnessManipulation, Plain
from robustdml.defenses.defense import first_memory
from robustdml.distance import Euclidean
from robustdml.draws import Draws
from robustdml.losses import FrozenPrototypes, Margin, MultiSimilarity, Triplet
from robustdml.types import Batch
from tests.toys import blobs, linear, network

ADVERSARY = Adversary(Linf(0.05), Pgd(3, 0.02))


def batch():
    images, labels = blobs(4, 2)
    return Batch(images, labels, torch.arange(len(images)))


def step(defense, embedder, loss, memory=None):
    return defense(embedder, loss, batch(), memory=memory or {}, progress=0.0, draws=Draws(0), mean=lambda value: value)


def test_it_adds_the_weighted_loss_of_the_clean_images():
    embedder, given = linear(), batch()
    inner = AntiCollapse(ADVERSARY)
    alone, both = (step(d, embedder, Triplet()) for d in (inner, Benign(inner, weight=0.3)))
    clean = MultiSimilarity()(embedder(given.images), given.labels, draws=Draws(0), index=given.index)
    torch.testing.assert_close(both.loss, alone.loss + 0.3 * clean)
    assert both.logs["benign"] == pytest.approx(float(clean.detach()))
    torch.testing.assert_close(both.z, alone.z)
    gradients = [torch.autograd.grad(value, list(embedder.parameters()))[0] for value in (both.loss, alone.loss, clean)]
    torch.testing.assert_close(gradients[0], gradients[1] + 0.3 * gradients[2])


def test_with_the_same_loss_and_no_defense_it_counts_twice():
    embedder, loss = linear(), MultiSimilarity()
    alone = step(Plain(), embedder, loss).loss
    torch.testing.assert_close(step(Benign(Plain(), loss, 1.0), embedder, loss).loss, 2 * alone)


def test_the_clean_images_are_embedded_once_after_those_of_the_inner_defense():
    embedder, inner = network(), AntiCollapse(ADVERSARY)
    rows = []

    def note(module, given, out):
        if module.training:
            rows.append(len(out))

    embedder.register_forward_hook(note)
    step(inner, embedder, Triplet())
    alone = list(rows)
    rows.clear()
    step(Benign(inner), embedder, Triplet())
    assert rows == [*alone, 8]


def test_it_remembers_what_the_inner_defense_does():
    embedder = linear()
    inner = HardnessManipulation(ADVERSARY, destination=Gradual())
    memory = first_memory(Benign(inner), embedder)
    assert {name: float(value) for name, value in memory.items()} == {"previous": 2.0}
    alone, both = (step(d, embedder, Triplet(), memory) for d in (inner, Benign(inner)))
    torch.testing.assert_close(both.memory, alone.memory)


def test_two_losses_that_rank_differently_are_refused():
    Benign(Plain()).check(Triplet())
    with pytest.raises(ValueError, match=r"MultiSimilarity with Cosine beside Triplet with Euclidean.*beside.distance"):
        Benign(Plain()).check(Triplet(Euclidean()))
    Benign(Plain(), Triplet(Euclidean())).check(Triplet(Euclidean()))
    with pytest.raises(ValueError, match="defined on triplets, got MultiSimilarity"):
        Benign(AntiCollapse(ADVERSARY)).check(MultiSimilarity())
    for beside in (Margin(), FrozenPrototypes()):
        with pytest.raises(ValueError, match=f"no weights and no classes for its loss, and {type(beside).__name__}"):
            Benign(Plain(), beside).check(Triplet())
    with pytest.raises(ValueError, match="numbers >= 0, got weight nan"):
        replace(Benign(Plain()), weight=float("nan"))
