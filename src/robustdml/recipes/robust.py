"""Recipes of this library's own that are meant to be robust; the page of results compares them with the published."""

from dataclasses import replace

from robustdml.adversary import Adversary
from robustdml.defenses import AdversarialTraining, Benign, Defense
from robustdml.distance import Spherical
from robustdml.losses import MultiSimilarity, Pml
from robustdml.recipe import Adam, Recipe
from robustdml.recipes.robrank import ADVERSARY_28, act_fashion_c2f2_quick, fewer_steps
from robustdml.recipes.robrank224 import ADVERSARY_32, plain_cifar100_resnet18
from robustdml.types import RunReference

_QUICK_28 = fewer_steps(ADVERSARY_28, 8)
_NOTE = "8 inner steps of 12/255, network in bfloat16"


def robust_fashion_c2f2_first() -> Recipe:
    """The model of ACT trained further: normalised softmax, half of it of adversarial images; ours.

    From random weights the loss of adversarial images did not leave that of guessing.
    """
    act = act_fashion_c2f2_quick()
    return replace(
        act,
        name="robust-fashion-c2f2-first",
        start=RunReference(f"runs/{act.name}"),
        loss=Pml("NormalizedSoftmaxLoss", distance=Spherical()),
        defense=AdversarialTraining(_QUICK_28, benign=0.5),
        epochs=2,
        decay="cosine",
        averaging=0.99,
        paper="",
        note=_NOTE,
    )


def robust_fashion_c2f2() -> Recipe:
    """Trained further: normalised softmax of adversarial images, and multi-similarity of clean ones; ours."""
    first = robust_fashion_c2f2_first()
    return replace(
        first,
        name="robust-fashion-c2f2",
        start=RunReference(f"runs/{first.name}"),
        defense=_proxies_and_pairs(_QUICK_28),
    )


def robust_cifar100_resnet18() -> Recipe:
    """The plain model trained further as in the second stage on Fashion-MNIST, 4 inner steps; ours."""
    plain = plain_cifar100_resnet18()
    return replace(
        plain,
        name="robust-cifar100-resnet18",
        start=RunReference(f"runs/{plain.name}"),
        defense=_proxies_and_pairs(ADVERSARY_32),
        optimiser=Adam(lr=3e-4),
        epochs=5,
        milestones=(),
        decay="cosine",
        averaging=0.99,
        note="4 inner steps of 4/255",
    )


def _proxies_and_pairs(adversary: Adversary) -> Defense:
    return Benign(AdversarialTraining(adversary), MultiSimilarity(), weight=1.0)
