"""An adversary that grows with the training."""

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Noise, Pgd
from robustdml.defenses import (
    AntiCollapse,
    CollapseAware,
    Constant,
    Growing,
    HardnessManipulation,
    Plain,
    ShiftTraining,
)
from robustdml.draws import Draws
from robustdml.losses import MultiSimilarity, Triplet
from robustdml.types import Batch
from tests.toys import blobs, linear

ADVERSARY = Adversary(Linf(0.08), Pgd(4, 0.04))


def step(defense, embedder, progress):
    images, labels = blobs(4, 2)
    batch = Batch(images, labels, torch.arange(8))
    return defense(embedder, Triplet(), batch, memory={}, progress=progress, draws=Draws(0), mean=lambda t: t)


@pytest.mark.parametrize(("progress", "size"), [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (0.4, 1.0), (0.9, 1.0)])
def test_radius_and_steps_grow_together(progress, size):
    embedder = linear()
    found = step(Growing(AntiCollapse(ADVERSARY), share=0.4), embedder, progress)
    expected = step(AntiCollapse(Adversary(Linf(0.08 * size), Pgd(4, 0.04 * size))), embedder, progress)
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.logs["eps"] == pytest.approx(0.08 * size)


def test_memory_and_logs_of_the_inner_defense_are_kept():
    inner = HardnessManipulation(ADVERSARY, destination=Constant(-0.01))
    found = step(Growing(inner), linear(), 1.0)
    expected = step(inner, linear(), 1.0)
    assert found.logs == expected.logs | {"eps": 0.08}
    assert torch.equal(found.memory["previous"], expected.memory["previous"])


def test_what_cannot_grow_is_refused():
    with pytest.raises(ValueError, match="Growing lets an adversary grow, and Plain has none"):
        Growing(Plain())
    with pytest.raises(ValueError, match="the size of inner steps grows, and Noise has none"):
        Growing(ShiftTraining(Adversary(Linf(0.1), Noise())))
    with pytest.raises(ValueError, match="CollapseAware lets its inner steps grow by itself"):
        Growing(CollapseAware(ADVERSARY))
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"share in \(0, 1\]"):
            Growing(AntiCollapse(ADVERSARY), share)
    with pytest.raises(ValueError, match="AntiCollapse needs a loss defined on triplets"):
        Growing(AntiCollapse(ADVERSARY)).check(MultiSimilarity())
