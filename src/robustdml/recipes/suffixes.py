"""The end of a model's name in RobRank's experiment strings: which defense it is trained with (arXiv:2106.03614)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

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
    Gradual,
    HardnessManipulation,
    MinMax,
    Mixture,
    Penalised,
    Plain,
    Sampled,
    ShiftSuppression,
    ShiftTraining,
    StoppedMinMax,
    TripletCollapse,
)
from robustdml.distance import Distance, Spherical
from robustdml.energies import Objective
from robustdml.mining import Miner
from robustdml.recipes.loss_names import MINERS

_SPHERE = Spherical()

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
    "hmix": lambda adversary: Mixture(defended("", "hmetrm", adversary), defended("", "hmetsm", adversary)),
    "fatnone": lambda adversary: _free(adversary, eps=0.0),
    "fatamd": _free,
    "fatamdsemi": lambda adversary: _free(adversary, forget_above=-0.2),
}
"""Defense by suffix, for the adversary of the data set."""
_SEVEN_STEPS = {("rc2f2", "amd"), ("rc2f2", "ramd")}
_DIAGNOSES = {"dco": "EST", "dbe": "EST", "pco": "ACT", "pbe": "ACT"}
_STRUCTURE = {"sop": 0.05}
"""Published weight of intra-class structure where it is not 0.5."""
_SEMIHARD_MARGIN = 0.2


@dataclass(frozen=True)
class Manipulation:
    """What a suffix `[g](hm|rh)(et|l2|kl)(source)(destination)[i]` says (RobDML, arXiv:2203.01439)."""

    gradual: bool
    fixed_anchor: bool
    objective: Objective
    source: str
    destination: str
    structure: bool

    @property
    def idle(self) -> bool:
        """Equal letters: the triplets are as hard as they shall be, and none moves."""
        return self.source == self.destination and not self.gradual

    def defense(self, adversary: Adversary, dataset: str, distance: Distance) -> Defense:
        """The defense, on batches of a data set."""
        if self.idle:
            return Plain()
        return HardnessManipulation(
            adversary if self.objective == "KL" else until_saturated(adversary),
            source=sampler(self.source, distance),
            destination=Gradual() if self.gradual else Sampled(sampler(self.destination, distance)),
            objective=self.objective,
            roles="pn" if self.fixed_anchor else "apn",
            structure=_STRUCTURE.get(dataset, 0.5) if self.structure else 0.0,
        )


MANIPULATION = "[g](hm|rh)(et|l2|kl)(r|m|s|d|h)(r|m|s|d|h)[i]"
"""The suffixes of hardness manipulation, for people."""
_MANIPULATION = re.compile(r"(g?)(hm|rh)(et|l2|kl)([rmsdh])([rmsdh])(i?)")


def sampler(letter: str, distance: Distance) -> Miner:
    """The miner of a letter r, m, s, d or h."""
    return MINERS["" if letter == "r" else letter](_SEMIHARD_MARGIN, distance)


def manipulation(suffix: str) -> Manipulation | None:
    """What a suffix of hardness manipulation says; `None` for any other."""
    match = _MANIPULATION.fullmatch(suffix)
    if match is None:
        return None
    g, form, objective, source, destination, i = match.groups()
    named: dict[str, Objective] = {"et": "ET", "l2": "L2", "kl": "KL"}
    return Manipulation(bool(g), form == "rh", named[objective], source, destination, bool(i))


def is_suffix(text: str) -> bool:
    """Whether a network for ranking can have it."""
    return text in SUFFIXES or manipulation(text) is not None


def defended(
    backbone: str, suffix: str, adversary: Adversary, dataset: str = "", distance: Distance = _SPHERE
) -> Defense:
    """The defense of a suffix, behind this backbone, for a data set and the distance of the loss."""
    said = manipulation(suffix)
    if said:
        return said.defense(adversary, dataset, distance)
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
    return None
