"""RobDML (arXiv:2203.01439): hardness manipulation with the gradual adversary, and intra-class structure.

The triplets that are made harder are soft-hard ones, as the paper proposes. Published figures are those of the last
epoch; those of Fashion-MNIST with 32 steps are measured on the page of results, the others say that they are not.
"""

from dataclasses import replace

from robustdml.adversary import Adversary, Pgd
from robustdml.defenses import Defense, Gradual, HardnessManipulation, Sampled
from robustdml.mining import SemiHard, SoftHard
from robustdml.recipe import Recipe
from robustdml.recipes.robrank import (
    ADVERSARY_28,
    ADVERSARY_224,
    UNMEASURED,
    plain_fashion_c2f2,
    plain_mnist_c2f2,
    quick,
)
from robustdml.recipes.robrank224 import (
    ADVERSARY_32,
    further,
    plain_cars_resnet18,
    plain_cifar100_resnet18,
    plain_cub_resnet18,
    plain_sop_resnet18,
)
from robustdml.recipes.suffixes import until_saturated

SOURCE = SoftHard("as-published")


def hm_fashion_c2f2() -> Recipe:
    """C2F2 + HM[S,M] on Fashion-MNIST; nothing is published."""
    defense = HardnessManipulation(until_saturated(ADVERSARY_28), SOURCE, Sampled(SemiHard(0.2)))
    return _with(plain_fashion_c2f2(), "hm", defense, note="")


def hm_lga_fashion_c2f2() -> Recipe:
    """C2F2 + HM[S,g_LGA] on Fashion-MNIST; nothing is published."""
    return _with(plain_fashion_c2f2(), "hm-lga", gradual(ADVERSARY_28), note="")


def hm_lga_ics_fashion_c2f2() -> Recipe:
    """C2F2 + HM[S,g_LGA]&ICS on Fashion-MNIST; RobRank's README once had R@1 88.0, ERS 83.9."""
    return _with(plain_fashion_c2f2(), "hm-lga-ics", gradual(ADVERSARY_28, structure=0.5), note="")


def hm_lga_ics_mnist_c2f2() -> Recipe:
    """C2F2 + HM[S,g_LGA]&ICS on MNIST; RobRank's README once had R@1 99.0, ERS 77.9."""
    return _with(plain_mnist_c2f2(), "hm-lga-ics", gradual(ADVERSARY_28, structure=0.5))


def hm_fashion_c2f2_quick() -> Recipe:
    """HM[S,M] on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(replace(hm_fashion_c2f2(), note=UNMEASURED))


def hm_lga_fashion_c2f2_quick() -> Recipe:
    """HM[S,g_LGA] on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(replace(hm_lga_fashion_c2f2(), note=UNMEASURED))


def hm_lga_ics_fashion_c2f2_quick() -> Recipe:
    """HM[S,g_LGA]&ICS on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(replace(hm_lga_ics_fashion_c2f2(), note=UNMEASURED))


def hm_lga_cub_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA] on CUB-200-2011; published R@1 36.5, ERS 35.9."""
    return _with(plain_cub_resnet18(), "hm-lga", gradual(ADVERSARY_224))


def hm_lga_ics_cub_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA]&ICS on CUB-200-2011; published R@1 34.9, ERS 36.0."""
    return _with(plain_cub_resnet18(), "hm-lga-ics", gradual(ADVERSARY_224, structure=0.5))


def hm_lga_cub_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps, without intra-class structure; published R@1 38.0, ERS 32.4."""
    return _in_8_steps(hm_lga_cub_resnet18())


def hm_lga_ics_cub_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps; published R@1 37.2, ERS 33.5."""
    return _in_8_steps(hm_lga_ics_cub_resnet18())


def hm_lga_cars_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA] on Cars-196; published R@1 62.3, ERS 44.9."""
    return _with(plain_cars_resnet18(), "hm-lga", gradual(ADVERSARY_224))


def hm_lga_ics_cars_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA]&ICS on Cars-196; published R@1 60.2, ERS 46.0."""
    return _with(plain_cars_resnet18(), "hm-lga-ics", gradual(ADVERSARY_224, structure=0.5))


def hm_lga_cars_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps, without intra-class structure; published R@1 63.2, ERS 42.4."""
    return _in_8_steps(hm_lga_cars_resnet18())


def hm_lga_ics_cars_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps; published R@1 61.7, ERS 47.9."""
    return _in_8_steps(hm_lga_ics_cars_resnet18())


def hm_lga_sop_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA] on Stanford Online Products; published R@1 47.7, ERS 61.8."""
    return _with(plain_sop_resnet18(), "hm-lga", gradual(ADVERSARY_224))


def hm_lga_ics_sop_resnet18() -> Recipe:
    """ResNet-18 + HM[S,g_LGA]&ICS, weight 0.05, on Stanford Online Products; published R@1 46.8, ERS 61.6."""
    return _with(plain_sop_resnet18(), "hm-lga-ics", gradual(ADVERSARY_224, structure=0.05))


def hm_lga_sop_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps, without intra-class structure; published R@1 49.0, ERS 61.7."""
    return _in_8_steps(hm_lga_sop_resnet18())


def hm_lga_ics_sop_resnet18_8steps() -> Recipe:
    """The same with 8 inner steps; published R@1 48.3, ERS 61.2."""
    return _in_8_steps(hm_lga_ics_sop_resnet18())


def hm_cifar100_resnet18() -> Recipe:
    """The plain model trained further with HM[S,M], 4 inner steps."""
    defense = HardnessManipulation(until_saturated(ADVERSARY_32), SOURCE, Sampled(SemiHard(0.2)))
    return _further("hm", defense)


def hm_lga_cifar100_resnet18() -> Recipe:
    """The plain model trained further with HM[S,g_LGA], 4 inner steps."""
    return _further("hm-lga", gradual(ADVERSARY_32))


def hm_lga_ics_cifar100_resnet18() -> Recipe:
    """The plain model trained further with HM[S,g_LGA]&ICS, 4 inner steps."""
    return _further("hm-lga-ics", gradual(ADVERSARY_32, structure=0.5))


def gradual(adversary: Adversary, structure: float = 0.0) -> HardnessManipulation:
    """HM[S,g_LGA], with intra-class structure of a weight."""
    return HardnessManipulation(until_saturated(adversary), SOURCE, Gradual(), structure=structure)


def _with(plain: Recipe, prefix: str, defense: Defense, note: str = UNMEASURED) -> Recipe:
    name = plain.name.replace("plain", prefix)
    return replace(plain, name=name, defense=defense, paper="robdml", note=note)


def _further(prefix: str, defense: Defense) -> Recipe:
    return further(plain_cifar100_resnet18(), prefix, defense, "robdml")


def _in_8_steps(recipe: Recipe) -> Recipe:
    defense = recipe.defense
    assert isinstance(defense, HardnessManipulation)
    assert isinstance(defense.adversary.search, Pgd)
    adversary = replace(defense.adversary, search=replace(defense.adversary.search, steps=8))
    return replace(recipe, name=f"{recipe.name}-8steps", defense=replace(defense, adversary=adversary))
