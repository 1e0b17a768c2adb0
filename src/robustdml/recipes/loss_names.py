"""The losses of RobRank's experiment strings, with their published settings (arXiv:2106.03614).

`pdtripletN` is a batch of pairs (p), distance-weighted negatives (d), the triplet loss, and the unit sphere (N).
"""

from collections.abc import Callable
from dataclasses import replace

from robustdml.distance import Cosine, Distance, Euclidean, Spherical
from robustdml.losses import (
    Contrastive,
    Gil,
    InfoNce,
    LiftedStructure,
    Loss,
    Margin,
    MultiSimilarity,
    NPair,
    Pml,
    Quadruplet,
    Rhomboid,
    Snr,
    Triplet,
)
from robustdml.mining import (
    DistanceWeighted,
    Hardest,
    Miner,
    PmlMiner,
    Random,
    RandomTriplet,
    SemiHard,
    SoftHard,
    Switched,
    WideAngle,
)
from robustdml.serial import nearest

METRICS: dict[str, Distance] = {"C": Cosine(), "E": Euclidean(), "N": Spherical()}


def _weighted(distance: Distance) -> DistanceWeighted:
    return DistanceWeighted(cutoff=0.0, farthest=2.0, as_published=distance == Spherical())


MINERS: dict[str, Callable[[float, Distance], Miner]] = {
    "": lambda margin, distance: Random(),
    "m": lambda margin, distance: SemiHard(margin),
    "s": lambda margin, distance: SoftHard("as-published"),
    "d": lambda margin, distance: _weighted(distance),
    "D": lambda margin, distance: Switched(_weighted(distance), probability=0.15),
    "h": lambda margin, distance: Hardest(),
    "c": lambda margin, distance: RandomTriplet(),
    "t": lambda margin, distance: Random(),
}
"""By letter, for margin and distance of the loss; c and t stand for class batches and ready triplets."""
_SEMIHARD = PmlMiner("TripletMarginMiner", {"margin": 1.0, "type_of_triplets": "semihard"}, sampled=True)


def _margin(letter: str) -> float:
    return 1.0 if letter == "E" else 0.2


FAMILIES: dict[str, tuple[dict[str, str], Callable[[Distance, str], Loss]]] = {
    "contrast": ({"": "CEN", "d": "N", "D": "N"}, lambda d, letter: Contrastive(d, margin=1.0)),
    "triplet": (
        {"": "CEN", "m": "CEN", "s": "CEN", "h": "CEN", "d": "CN", "D": "N"},
        lambda d, letter: Triplet(d, margin=_margin(letter)),
    ),
    "tripxa": ({"": "N"}, lambda d, letter: Triplet(d, margin=_margin(letter), anchor="fixed")),
    "margin": ({"": "CEN", "d": "N"}, lambda d, letter: Margin(d)),
    "quad": (
        {"": "CEN", "d": "N"},
        lambda d, letter: Quadruplet(
            d,
            margin=_margin(letter),
            second_margin=0.5 if letter == "E" else 0.1,
            second="as-published" if letter == "N" else "mined",
        ),
    ),
    "rhom": ({"": "CEN", "d": "N"}, lambda d, letter: Rhomboid(d, margin=_margin(letter))),
    "gil": ({"": "CEN"}, lambda d, letter: Gil(d)),
    "snr": ({"": "CEN"}, lambda d, letter: Snr(d)),
    "glift": ({"": "CEN"}, lambda d, letter: LiftedStructure(d, margin=_margin(letter))),
    "npair": ({"": "CEN"}, lambda d, letter: NPair(d)),
    "ms": ({"": "CN"}, lambda d, letter: MultiSimilarity(d, pairs="as-published")),
    "ice": ({"": "C"}, lambda d, letter: InfoNce(d)),
    "strip": ({"": "N"}, lambda d, letter: Pml("TripletMarginLoss", {"margin": 1.0}, d, _SEMIHARD)),
    "angular": ({"": "N"}, lambda d, letter: Pml("AngularLoss", {"alpha": 40}, d, WideAngle(20.0))),
    "nca": ({"": "N"}, lambda d, letter: Pml("NCALoss", {}, d, _SEMIHARD)),
}
"""By family: the metric letters of each miner letter, and the loss of a distance and its letter."""
PARTS = {
    **{
        f"p{miner}{family}{letter}": (miner, family, letter)
        for family, (legal, _) in FAMILIES.items()
        for miner, letters in legal.items()
        for letter in letters
    },
    **{f"{prefix}triplet{letter}": (prefix, "triplet", letter) for prefix in "ct" for letter in METRICS},
}
"""Every name that resolves, in its letters."""
_CANNOT_BUILD = "RobRank lists this loss and cannot build it; batches and epochs are those that it has for it"
_PUBLISHED_PAIRS = "pairs of even rows alone, none left out, as RobRank has them (--loss.pairs informative corrects)"
_MINED_SECOND = "the second negative is a mined one; RobRank's is an unrelated row (--loss.second as-published)"
NOTES: dict[str, str] = {
    "pcontrastC": "with a negative term, which RobRank's margin takes away (--loss.margin 0): it collapses",
    "pdtripletC": "negatives by Euclidean distance; RobRank puts 1 - cos in its place (--loss.miner.as_published true)",
    "pquadN": "the second negative is an unrelated row, as RobRank has it (--loss.second mined for a mined one)",
    "pdquadN": "the second negative is an unrelated row, as RobRank has it (--loss.second mined for a mined one)",
    "pquadC": _MINED_SECOND,
    "pquadE": _MINED_SECOND,
    "pmsC": _PUBLISHED_PAIRS,
    "pmsN": _PUBLISHED_PAIRS,
    **{f"{prefix}triplet{letter}": _CANNOT_BUILD for prefix in "ct" for letter in METRICS},
}
"""What a recipe says of a name that does not mean what one expects; published faults stay where a table needs them."""
_NEVER_THERE = "RobRank lists it and has no such loss"
WITHOUT_MEANING = {
    "contrast": _NEVER_THERE,
    "contrastiveC": _NEVER_THERE,
    "contrastiveE": _NEVER_THERE,
    "pcontN": f"{_NEVER_THERE}; pcontrastN has one",
    "pDmarginN": f"{_NEVER_THERE}; write pdmarginN with --loss.miner Switched",
    "pdtripletE": "distance weighting is not defined off the unit sphere, where RobRank draws from all rows alike, "
    "those of the anchor's class included",
}
"""Names in RobRank's lists that cannot be resolved, and why."""


def named_loss(name: str) -> Loss:
    """The loss of a name such as `pdtripletN`, as published where a table needs it.

    Raises:
        ValueError: if there is none, with the reason or the nearest names.
    """
    if name in WITHOUT_MEANING:
        raise ValueError(f"the loss {name!r} has no meaning: {WITHOUT_MEANING[name]}.")
    if name not in PARTS:
        raise ValueError(f"the loss {name!r} is not available. {nearest(name, list(PARTS))}")
    miner, family, letter = PARTS[name]
    loss = FAMILIES[family][1](METRICS[letter], letter)
    if miner == "":
        return loss
    assert isinstance(loss, (Triplet, Contrastive, Margin, Quadruplet, Rhomboid))
    return replace(loss, miner=MINERS[miner](loss.margin, loss.distance))
