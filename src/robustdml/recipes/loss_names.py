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
from robustdml.mining import DistanceWeighted, Hardest, Miner, PmlMiner, Random, SemiHard, SoftHard, Switched
from robustdml.serial import nearest

METRICS: dict[str, Distance] = {"C": Cosine(), "E": Euclidean(), "N": Spherical()}
_WEIGHTED = DistanceWeighted(cutoff=0.0, farthest=2.0, as_published=True)
MINERS: dict[str, Callable[[float], Miner]] = {
    "": lambda margin: Random(),
    "m": SemiHard,
    "s": lambda margin: SoftHard("as-published"),
    "d": lambda margin: _WEIGHTED,
    "D": lambda margin: Switched(_WEIGHTED, probability=0.15),
    "h": lambda margin: Hardest(),
}
"""By letter, for the margin of the loss."""
_SEMIHARD = PmlMiner("TripletMarginMiner", {"margin": 1.0, "type_of_triplets": "semihard"}, sampled=True)
_ANGULAR = PmlMiner("AngularMiner", {"angle": 20}, sampled=True)


def _margin(letter: str) -> float:
    return 1.0 if letter == "E" else 0.2


FAMILIES: dict[str, tuple[dict[str, str], Callable[[Distance, str], Loss]]] = {
    "contrast": (  # margin 0 is what upstream does for C, negative term and all
        {"": "CEN", "d": "N", "D": "N"},
        lambda d, letter: Contrastive(d, margin=0.0 if letter == "C" else 1.0),
    ),
    "triplet": (
        {"": "CEN", "m": "CEN", "s": "CEN", "h": "CEN", "d": "CN", "D": "N"},
        lambda d, letter: Triplet(d, margin=_margin(letter)),
    ),
    "tripxa": ({"": "N"}, lambda d, letter: Triplet(d, margin=_margin(letter), anchor="fixed")),
    "margin": ({"": "CEN", "d": "N"}, lambda d, letter: Margin(d)),
    "quad": (
        {"": "CEN", "d": "N"},
        lambda d, letter: Quadruplet(
            d, margin=_margin(letter), second_margin=0.5 if letter == "E" else 0.1, second="as-published"
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
    "angular": ({"": "N"}, lambda d, letter: Pml("AngularLoss", {"alpha": 40}, d, _ANGULAR)),
    "nca": ({"": "N"}, lambda d, letter: Pml("NCALoss", {}, d, _SEMIHARD)),
}
"""By family: the metric letters of each miner letter, and the loss of a distance and its letter."""
PARTS = {
    f"p{miner}{family}{letter}": (miner, family, letter)
    for family, (legal, _) in FAMILIES.items()
    for miner, letters in legal.items()
    for letter in letters
}
"""Every name that resolves, in its letters."""
_NEVER_THERE = "RobRank lists it and has no such loss"
WITHOUT_MEANING = {
    "contrast": _NEVER_THERE,
    "contrastiveC": _NEVER_THERE,
    "contrastiveE": _NEVER_THERE,
    "pcontN": f"{_NEVER_THERE}; pcontrastN has one",
    "pDmarginN": f"{_NEVER_THERE}; write pdmarginN with --loss.miner Switched",
    "pdtripletE": "distance weighting is not defined off the unit sphere, where RobRank draws from all rows alike, "
    "those of the anchor's class included",
    **{
        f"ctriplet{letter}": "RobRank lists it and cannot build it; "
        f"write ptriplet{letter} with --batches ClassBatches --loss.miner RandomTriplet --epochs 16"
        for letter in METRICS
    },
    **{
        f"ttriplet{letter}": "RobRank lists it and cannot build it; "
        f"write ptriplet{letter} with --batches TripletBatches --epochs 5"
        for letter in METRICS
    },
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
    return replace(loss, miner=MINERS[miner](loss.margin))
