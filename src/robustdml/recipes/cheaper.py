"""Cheaper adversaries: one inner step, or none of its own, in the setting of Fashion-MNIST; nothing is published.

`single` and `free` make them of any recipe with an adversary.
"""

from collections.abc import Callable
from dataclasses import replace

from robustdml.adversary import Adversary, Pgd
from robustdml.defenses import Defense, Mixture, Replay
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
    return _measured(single(act_fashion_c2f2()))


def hm_lga_ics_fashion_c2f2_single() -> Recipe:
    """HM[S,g_LGA]&ICS on Fashion-MNIST with one inner step from a random start, in bfloat16."""
    return _measured(single(hm_lga_ics_fashion_c2f2()))


def act_fashion_c2f2_free() -> Recipe:
    """ACT on Fashion-MNIST, every batch trained on 4 times with one inner step between, in bfloat16."""
    return _measured(free(act_fashion_c2f2()))


def hm_lga_ics_fashion_c2f2_free() -> Recipe:
    """HM[S,g_LGA]&ICS on Fashion-MNIST, every batch trained on 4 times with one inner step between, in bfloat16."""
    return free(hm_lga_ics_fashion_c2f2())


def single(recipe: Recipe) -> Recipe:
    """One inner step of the whole radius from a random point of the ball (Wong et al., arXiv:2001.03994)."""

    def once(defense: Defense, adversary: Adversary) -> Defense:
        return with_adversary(defense, replace(adversary, search=Pgd(1, adversary.ball.eps, random_start=True)))

    made = replace(recipe, name=f"{recipe.name}-single", defense=_cheaper(recipe, once))
    return _noted(made, "1 inner step, random start")


def free(recipe: Recipe, repeats: int = FREE_REPEATS) -> Recipe:
    """Steps of the whole radius between the repeats of a batch, and that many epochs fewer (arXiv:1904.12843)."""

    def replayed(defense: Defense, adversary: Adversary) -> Defense:
        return Replay(with_adversary(defense, replace(adversary, search=Pgd(1, adversary.ball.eps))), repeats)

    epochs = max(1, recipe.epochs // repeats)
    milestones = tuple(sorted({m // repeats for m in recipe.milestones} - {0}))
    defense = _cheaper(recipe, replayed)
    made = replace(recipe, name=f"{recipe.name}-free", defense=defense, epochs=epochs, milestones=milestones)
    return _noted(made, f"free variant, {repeats} repeats")


def _cheaper(recipe: Recipe, change: Callable[[Defense, Adversary], Defense]) -> Defense:
    """The defense with its adversary made cheaper, on both sides of a mixture.

    Raises:
        ValueError: if it has none.
    """

    def made(defense: Defense) -> Defense:
        if isinstance(defense, Mixture):
            return replace(defense, first=made(defense.first), second=made(defense.second))
        adversary = adversary_of(defense)
        return defense if adversary is None else change(defense, adversary)

    found = made(recipe.defense)
    if found == recipe.defense:
        raise ValueError(
            f"{recipe.name} has no adversary to make cheaper; its defense is {type(recipe.defense).__name__}."
        )
    return found


def _measured(recipe: Recipe) -> Recipe:
    return replace(recipe, note=recipe.note.removeprefix(f"{UNMEASURED}; "))


def _noted(recipe: Recipe, departs: str) -> Recipe:
    kept = recipe.note.removeprefix(UNMEASURED).removeprefix("; ")
    note = "; ".join(part for part in (UNMEASURED, kept, f"{departs}, network in bfloat16") if part)
    return replace(recipe, precision="bf16", note=note)
