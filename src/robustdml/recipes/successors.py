"""Defenses published after RobDML, in the settings of Fashion-MNIST and CIFAR-100; nothing is published for them."""

from dataclasses import replace

from robustdml.defenses import CollapseAware, Defense, RoleAscent
from robustdml.recipe import Recipe
from robustdml.recipes.robrank import ADVERSARY_28, UNMEASURED, fewer_steps, plain_fashion_c2f2
from robustdml.recipes.robrank224 import ADVERSARY_32, further, plain_cifar100_resnet18

ADVERSARY_16 = fewer_steps(ADVERSARY_28, 16)
"""The sixteen inner steps of CA-TRIDE with the reach of RobRank's 32."""
_QUICK = "8 inner steps of 12/255, network in bfloat16"


def catride_fashion_c2f2() -> Recipe:
    """C2F2 + CA-TRIDE (arXiv:2312.07364) on Fashion-MNIST, 16 inner steps of 6/255."""
    return _with("catride", CollapseAware(ADVERSARY_16), "catride")


def catride_fashion_c2f2_quick() -> Recipe:
    """The same with 8 inner steps of 12/255 in bfloat16."""
    made = _quick(_with("catride", CollapseAware(fewer_steps(ADVERSARY_16, 8)), "catride"))
    return replace(made, note=_QUICK)


def roleascent_fashion_c2f2_quick() -> Recipe:
    """C2F2 + one moved role, the anchor (arXiv:2102.07265), on Fashion-MNIST, 8 inner steps of 12/255 in bfloat16."""
    return _quick(_with("roleascent", RoleAscent(fewer_steps(ADVERSARY_16, 8)), "roleascent"))


def catride_cifar100_resnet18() -> Recipe:
    """The plain model trained further with CA-TRIDE, 4 inner steps."""
    made = further(plain_cifar100_resnet18(), "catride", CollapseAware(ADVERSARY_32), "catride")
    return replace(made, note=UNMEASURED)


def _with(prefix: str, defense: Defense, paper: str) -> Recipe:
    plain = plain_fashion_c2f2()
    return replace(plain, name=plain.name.replace("plain", prefix), defense=defense, paper=paper, note=UNMEASURED)


def _quick(recipe: Recipe) -> Recipe:
    return replace(recipe, name=f"{recipe.name}-quick", precision="bf16", note=f"{recipe.note}; {_QUICK}")
