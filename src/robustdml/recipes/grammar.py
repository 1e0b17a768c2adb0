"""RobRank's experiment strings, `dataset:model:loss`, as recipes (arXiv:2106.03614).

`fashion:rc2f2p:ptripletN` is Fashion-MNIST, the ranking network C2F2 with ACT (suffix p), and the triplet loss on SPC-2
pairs with random negatives, ranked on the unit sphere (N).
"""

import re
from collections.abc import Callable
from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.table import DATASETS as NAMED
from robustdml.data.table import Dataset
from robustdml.defenses import AntiCollapse, Defense, Plain, ShiftTraining
from robustdml.distance import Cosine, Distance, Euclidean, Spherical
from robustdml.losses import Contrastive, Loss, Triplet
from robustdml.mining import DistanceWeighted, Hardest, Miner, Random, SemiHard, SoftHard
from robustdml.models import C2F2, LeNet, Model
from robustdml.recipe import Adam, Recipe
from robustdml.serial import nearest

DATASETS: dict[str, type[Dataset]] = {
    name: NAMED[name] for name in ("mnist", "fashion", "cub", "cars", "sop", "cifar10", "cifar100")
}
_OF_28 = ("mnist", "fashion")
BACKBONES: dict[str, tuple[Model, int]] = {"rc2f2": (C2F2(512), 8), "rlenet": (LeNet(128), 16)}
"""Network and epochs: upstream halves the 16 epochs for pairs, but not those of rlenet."""
_FULL = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
_ONE_STEP = Adversary(Linf(77 / 255), Pgd(steps=1, step_size=77 / 255))
SUFFIXES: dict[str, Defense] = {
    "": Plain(),
    "d": ShiftTraining(_FULL),
    "df": ShiftTraining(_ONE_STEP),
    "p": AntiCollapse(_FULL),
    "pf": AntiCollapse(_ONE_STEP),
}
METRICS: dict[str, Distance] = {"C": Cosine(), "E": Euclidean(), "N": Spherical()}
MINERS: dict[str, Callable[[float], Miner]] = {
    "": lambda margin: Random(),
    "m": SemiHard,
    "s": lambda margin: SoftHard("as-published"),
    "d": lambda margin: DistanceWeighted(cutoff=0.0, farthest=2.0, as_published=True),
    "h": lambda margin: Hardest(),
}
_LOSS = re.compile(r"p([msdh]?)triplet([CEN])|pcontrast([CEN])")


def from_string(text: str) -> Recipe:
    """The recipe of an experiment string.

    Raises:
        ValueError: naming the part that is not known, what is, and that the rest of the grammar comes later.
    """
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(
            f"{text!r} has {len(parts)} parts; an experiment string has three, dataset:model:loss, as in "
            "fashion:rc2f2p:ptripletN."
        )
    dataset, network, loss = parts
    if dataset not in DATASETS:
        raise ValueError(_unknown("data set", dataset, text, list(DATASETS)))
    models = {base + suffix: (base, defense) for base in BACKBONES for suffix, defense in SUFFIXES.items()}
    if network not in models:
        raise ValueError(_unknown("model", network, text, list(models)))
    base, defense = models[network]
    if dataset not in _OF_28:
        raise ValueError(
            f"{text}: {base} is a network for images of 28x28 pixels, those of {dataset} are larger. Known for it: "
            f"{', '.join(_OF_28)}. The rest of RobRank's grammar comes later."
        )
    model, epochs = BACKBONES[base]
    return Recipe(
        name=text.replace(":", "-"),
        data=DATASETS[dataset](),
        model=model,
        loss=_loss(loss, text),
        defense=defense,
        optimiser=Adam(lr=1e-3, weight_decay=1e-7),
        epochs=epochs,
        paper="est" if isinstance(defense, ShiftTraining) else "robrank",
    )


def _loss(name: str, text: str) -> Loss:
    found = _LOSS.fullmatch(name)
    if found is None:
        known = [f"p{m}triplet{d}" for m in MINERS for d in METRICS] + [f"pcontrast{d}" for d in METRICS]
        raise ValueError(_unknown("loss", name, text, known))
    miner, letter, contrast = found.groups()
    if contrast:  # margin 0 is what upstream does for C, negative term and all
        return Contrastive(METRICS[contrast], Random(), margin=0.0 if contrast == "C" else 1.0)
    margin = 1.0 if letter == "E" else 0.2
    return replace(Triplet(METRICS[letter], Random(), margin), miner=MINERS[miner](margin))


def _unknown(part: str, found: str, text: str, known: list[str]) -> str:
    hint = nearest(found, known)
    return f"{text}: the {part} {found!r} is not available. {hint} The rest of RobRank's grammar comes later."
