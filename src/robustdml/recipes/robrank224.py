"""RobRank's experiments on photographs (arXiv:2106.03614): plain, EST and ACT, and a small set for a CPU.

Published figures are those of the paper. Recipes that are not measured here say so in their notes.
"""

from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.batches import Spc2
from robustdml.data.cars import Cars
from robustdml.data.cifar_subset import Cifar100Subset
from robustdml.data.cub import Cub
from robustdml.data.sop import Sop
from robustdml.defenses import AntiCollapse, Defense, ShiftTraining
from robustdml.distance import Spherical
from robustdml.losses import Pml, Triplet
from robustdml.mining import Random, SoftHard
from robustdml.models import Backbone, Pretrained, SmallResNet
from robustdml.recipe import Adam, Recipe, Sgd, Validation
from robustdml.recipes.robrank import ADVERSARY_224, UNMEASURED
from robustdml.types import RunReference

ADVERSARY_32 = Adversary(Linf(8 / 255), Pgd(steps=4, step_size=4 / 255))
"""Our choice for 32x32: the radius of 224x224 in a quarter of the steps, half the reach."""
_LEARNING = "batch statistics are learned, as in the published EST; other defenses freeze them"


def plain_cub_resnet18() -> Recipe:
    """ResNet-18, triplet loss, no defense, on CUB-200-2011; published R@1 53.9, ERS 3.8."""
    return Recipe(
        name="plain-cub-resnet18",
        data=Cub(),
        model=Backbone("resnet18", 512, "frozen-statistics"),
        start=Pretrained(),
        loss=Triplet(Spherical(), Random(), margin=0.2),
        batches=Spc2(56),
        optimiser=Adam(lr=1e-5, weight_decay=4e-4),
        epochs=75,
        validation=Validation(every=5),
        paper="robrank",
        note=UNMEASURED,
    )


def _est(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        name=recipe.name.replace("plain", "est"),
        model=Backbone("resnet18", 512, "train"),
        defense=ShiftTraining(ADVERSARY_224),
        paper="est",
        note=f"{UNMEASURED}; {_LEARNING}",
    )


def _act(recipe: Recipe) -> Recipe:
    return replace(recipe, name=recipe.name.replace("plain", "act"), defense=AntiCollapse(ADVERSARY_224))


def est_cub_resnet18() -> Recipe:
    """ResNet-18 + EST on CUB-200-2011; published R@1 8.5, ERS 5.3."""
    return _est(plain_cub_resnet18())


def act_cub_resnet18() -> Recipe:
    """ResNet-18 + ACT on CUB-200-2011; published R@1 27.5, ERS 33.9."""
    return _act(plain_cub_resnet18())


def plain_cars_resnet18() -> Recipe:
    """ResNet-18, triplet loss, no defense, on Cars-196; published R@1 62.5, ERS 3.6."""
    return replace(plain_cub_resnet18(), name="plain-cars-resnet18", data=Cars())


def est_cars_resnet18() -> Recipe:
    """ResNet-18 + EST on Cars-196; published R@1 30.7, ERS 7.3."""
    return _est(plain_cars_resnet18())


def act_cars_resnet18() -> Recipe:
    """ResNet-18 + ACT on Cars-196; published R@1 43.4, ERS 38.6."""
    return _act(plain_cars_resnet18())


def plain_sop_resnet18() -> Recipe:
    """ResNet-18, triplet loss, no defense, on Stanford Online Products; published R@1 62.9, ERS 4.0."""
    return replace(plain_cub_resnet18(), name="plain-sop-resnet18", data=Sop())


def est_sop_resnet18() -> Recipe:
    """ResNet-18 + EST on Stanford Online Products; published R@1 46.0, ERS 31.7."""
    return _est(plain_sop_resnet18())


def act_sop_resnet18() -> Recipe:
    """ResNet-18 + ACT on Stanford Online Products; published R@1 47.5, ERS 50.8."""
    return _act(plain_sop_resnet18())


def plain_cifar100_resnet18() -> Recipe:
    """ResNet-18 for small images from random weights on a class-disjoint part of CIFAR-100, no defense; ours."""
    return Recipe(
        name="plain-cifar100-resnet18",
        data=Cifar100Subset(),
        model=SmallResNet(512),
        loss=Pml("NormalizedSoftmaxLoss", {"temperature": 1 / 16}, Spherical()),
        batches=Spc2(56),
        optimiser=Sgd(lr=0.1, momentum=0.9, weight_decay=5e-4),
        epochs=20,
        milestones=(12, 17),
        precision="bf16",
    )


def est_cifar100_resnet18() -> Recipe:
    """The plain model trained further with EST on triplets, 4 inner steps."""
    return further(plain_cifar100_resnet18(), "est", ShiftTraining(ADVERSARY_32), "est")


def act_cifar100_resnet18() -> Recipe:
    """The plain model trained further with ACT, 4 inner steps."""
    return further(plain_cifar100_resnet18(), "act", AntiCollapse(ADVERSARY_32), "robrank")


def further(plain: Recipe, prefix: str, defense: Defense, paper: str) -> Recipe:
    """Soft-hard triplets from the weights of the plain run, as published defenses begin with those of ImageNet."""
    return replace(
        plain,
        name=plain.name.replace("plain", prefix),
        start=RunReference(f"runs/{plain.name}"),
        loss=Triplet(Spherical(), SoftHard(), margin=0.2),
        defense=defense,
        optimiser=Adam(lr=3e-4),
        epochs=5,
        milestones=(),
        decay="cosine",
        paper=paper,
    )
