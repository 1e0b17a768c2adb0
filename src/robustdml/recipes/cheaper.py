"""Cheaper adversaries: one inner step, or none of its own, in the setting of Fashion-MNIST; nothing is published.

`single` and `free` make them of any recipe with an adversary.
"""

from dataclasses import replace

from robustdml.adversary import Adversary, Pgd
from robustdml.defenses import Replay
from robustdml.defenses.defense import adversary_of, with_adversary
from robustdml.recipe import Recipe
from robustdml.recipes.robdml import hm_lga_ics_fashion_c2f2
from robustdml.recipes.robrank import UNMEASURED, act_fashion_c2f2, est_fashion_c2f2
from robustdml.recipes.suffixes import FREE_REPEATS


def est_fashion_c2f2_single() -> Recipe:
    """EST on Fashion-MNIST with one inner step from a random start, in bfloat16."""
    return single(est_fashion_c2f2())


def act_fashion_c2f2_single() -> Recipe:
    """ACT on Fashion-MNIST with one inner step from a random start, in bfloat16."""
    return single(act_fashion_c2f2())


def hm_lga_ics_fashion_c2f2_single() -> Recipe:
    """HM[S,g_LGA]&ICS on Fashion-MNIST with one inner step from a random start, in bfloat16."""
    return single(hm_lga_ics_fashion_c2f2())


def act_fashion_c2f2_free() -> Recipe:
    """ACT on Fashion-MNIST, every batch trained on 4 times with one inner step between, in bfloat16."""
    return free(act_fashion_c2f2())


def hm_lga_ics_fashion_c2f2_free() -> Recipe:
    """HM[S,g_LGA]&ICS on Fashion-MNIST, every batch trained on 4 times with one inner step between, in bfloat16."""
    return free(hm_lga_ics_fashion_c2f2())


def single(recipe: Recipe) -> Recipe:
    """One inner step of the whole radius from a random point of the ball (Wong et al., arXiv:2001.03994)."""
    once = Pgd(1, _adversary(recipe).ball.eps, random_start=True)
    defense = with_adversary(recipe.defense, replace(_adversary(recipe), search=once))
    return _noted(replace(recipe, name=f"{recipe.name}-single", defense=defense), "1 inner step, random start")


def free(recipe: Recipe, repeats: int = FREE_REPEATS) -> Recipe:
    """Steps of the whole radius between the repeats of a batch, and that many epochs fewer (arXiv:1904.12843)."""
    once = Pgd(1, _adversary(recipe).ball.eps)
    inner = with_adversary(recipe.defense, replace(_adversary(recipe), search=once))
    epochs = max(1, recipe.epochs // repeats)
    milestones = tuple(sorted({m // repeats for m in recipe.milestones} - {0}))
    made = replace(
        recipe, name=f"{recipe.name}-free", defense=Replay(inner, repeats), epochs=epochs, milestones=milestones
    )
    return _noted(made, f"free variant, {repeats} repeats")


def _adversary(recipe: Recipe) -> Adversary:
    adversary = adversary_of(recipe.defense)
    if adversary is None:
        raise ValueError(
            f"{recipe.name} has no adversary to make cheaper; its defense is {type(recipe.defense).__name__}."
        )
    return adversary


def _noted(recipe: Recipe, departs: str) -> Recipe:
    kept = recipe.note.removeprefix(UNMEASURED).removeprefix("; ")
    note = "; ".join(part for part in (UNMEASURED, kept, f"{departs}, network in bfloat16") if part)
    return replace(recipe, precision="bf16", note=note)
