"""Recipes of our own for the embedded digits: seconds of training, for the demo, tests and first experiments."""

from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.batches import ClassBatches, Spc2
from robustdml.data.digits import Digits
from robustdml.defenses import AdversarialTraining, AntiCollapse, ShiftTraining
from robustdml.distance import Spherical
from robustdml.losses import CrossEntropy, Triplet
from robustdml.mining import Random
from robustdml.models import SmallConv
from robustdml.recipe import Adam, Recipe

ADVERSARY_8 = Adversary(Linf(77 / 255), Pgd(steps=8, step_size=12 / 255))
"""The budget of the 28x28 recipes with fewer, larger steps."""


def plain_digits_small() -> Recipe:
    """A small network on the 8x8 digits, triplet loss, no defense."""
    return Recipe(
        name="plain-digits-small",
        data=Digits(),
        model=SmallConv(dim=32),
        loss=Triplet(Spherical(), Random(), margin=0.2),
        batches=Spc2(64),
        optimiser=Adam(lr=2e-3),
        epochs=20,
    )


def est_digits_small() -> Recipe:
    """The same with EST (arXiv:2002.11293)."""
    return replace(plain_digits_small(), name="est-digits-small", defense=ShiftTraining(ADVERSARY_8), paper="est")


def act_digits_small() -> Recipe:
    """The same with ACT (arXiv:2106.03614)."""
    return replace(plain_digits_small(), name="act-digits-small", defense=AntiCollapse(ADVERSARY_8), paper="robrank")


def classify_digits_small() -> Recipe:
    """The small network with ten class scores on the 8x8 digits, cross-entropy, no defense."""
    return replace(
        plain_digits_small(),
        name="classify-digits-small",
        model=SmallConv(dim=10),
        loss=CrossEntropy(),
        batches=ClassBatches(64),
    )


def pgd_digits_small() -> Recipe:
    """The same trained on adversarial images (Madry et al., arXiv:1706.06083)."""
    defense = AdversarialTraining(ADVERSARY_8)
    return replace(classify_digits_small(), name="pgd-digits-small", defense=defense, paper="madry")
