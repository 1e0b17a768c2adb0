"""The end of a model's name in RobRank's experiment strings: which defense it is trained with (arXiv:2106.03614)."""

import re
from collections.abc import Callable
from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import (
    AdaptedAntiCollapse,
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    ClasswiseBarlow,
    Defense,
    FreeTraining,
    MinMax,
    Mixture,
    Penalised,
    Plain,
    ShiftSuppression,
    ShiftTraining,
    StoppedMinMax,
    TripletCollapse,
)

FREE_REPEATS = 4
"""Repeats per batch of free adversarial training; its epochs are divided by as much."""
_SATURATION = 1e-7
FEW_STEPS = 7
"""Inner steps of AMD and RAMD with rc2f2: with 32 they collapse."""


def one_step(adversary: Adversary) -> Adversary:
    """A single gradient that takes the whole radius (FGSM)."""
    return replace(adversary, search=Pgd(steps=1, step_size=adversary.ball.eps))


def until_saturated(adversary: Adversary) -> Adversary:
    """The same search, ended once it moves nothing."""
    return replace(adversary, search=replace(_pgd(adversary), saturation=_SATURATION))


def _pgd(adversary: Adversary) -> Pgd:
    if not isinstance(adversary.search, Pgd):
        raise ValueError(f"RobRank's defenses search with Pgd, got {type(adversary.search).__name__}.")
    return adversary.search


def _free(adversary: Adversary, eps: float | None = None, forget_above: float | None = None) -> FreeTraining:
    ball = adversary.ball if eps is None else Linf(eps)
    return FreeTraining(ball, _pgd(adversary).step_size, FREE_REPEATS, forget_above)


SUFFIXES: dict[str, Callable[[Adversary], Defense]] = {
    "": lambda adversary: Plain(),
    "d": ShiftTraining,
    "df": lambda adversary: ShiftTraining(one_step(adversary)),
    "e": ShiftSuppression,
    "r": AnchoredShiftTraining,
    "p": AntiCollapse,
    "pf": lambda adversary: AntiCollapse(one_step(adversary)),
    "px": lambda adversary: Mixture(AntiCollapse(adversary), Plain()),
    "pa": AdaptedAntiCollapse,
    "pbt": lambda adversary: Penalised(AntiCollapse(adversary), ClasswiseBarlow()),
    "m": MinMax,
    "t": TripletCollapse,
    "a": AlternatingCollapse,
    "amd": MinMax,
    "ramd": AnchoredMinMax,
    "amdsemi": lambda adversary: StoppedMinMax(until_saturated(adversary)),
    "amdsemiaap": lambda adversary: StoppedMinMax(until_saturated(adversary), structure=1.0),
    "amdsemiact": lambda adversary: Mixture(AntiCollapse(adversary), StoppedMinMax(until_saturated(adversary))),
    "fatnone": lambda adversary: _free(adversary, eps=0.0),
    "fatamd": _free,
    "fatamdsemi": lambda adversary: _free(adversary, forget_above=-0.2),
}
"""Defense by suffix, for the adversary of the data set."""
_SEVEN_STEPS = {("rc2f2", "amd"), ("rc2f2", "ramd")}
_DIAGNOSES = {"dco": "EST", "dbe": "EST", "pco": "ACT", "pbe": "ACT"}
_LATER = re.compile(r"g?(hm|rh)(kl|l2|et)[rmsdh]{2}i?|hmix")


def defended(backbone: str, suffix: str, adversary: Adversary) -> Defense:
    """The defense of a suffix that `SUFFIXES` knows, behind this backbone."""
    if (backbone, suffix) in _SEVEN_STEPS:
        adversary = replace(adversary, search=replace(_pgd(adversary), steps=FEW_STEPS))
    return SUFFIXES[suffix](adversary)


def with_barlow(defense: Defense) -> Defense:
    """The same for a loss with Barlow twins (`ptripletBTN`): the term is added once, whatever asks for it."""
    if isinstance(defense, Penalised) and isinstance(defense.penalty, ClasswiseBarlow):
        return defense
    return Penalised(defense, ClasswiseBarlow())


def meaningless(network: str, backbones: list[str]) -> str | None:
    """Why a model name that looks like RobRank's is no recipe; `None` if nothing is known of it."""
    for backbone in backbones:
        suffix = network.removeprefix(backbone)
        if suffix == network:
            continue
        if suffix in _DIAGNOSES:
            defense = _DIAGNOSES[suffix]
            return (
                f"{suffix!r} trains nothing: it measures how {defense} changes the gradients of triplets. Type: "
                f"robustdml diagnose RUN --defenses {defense}"
            )
        if _LATER.fullmatch(suffix):
            return f"hardness manipulation ({suffix!r}, arXiv:2203.01439) comes in a later version."
    return None
