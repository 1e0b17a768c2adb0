"""RobRank's experiment strings, `dataset:model:loss`, as recipes (arXiv:2106.03614).

`fashion:rc2f2p:ptripletN` is Fashion-MNIST, the ranking network C2F2 with ACT (suffix p), and the triplet loss on SPC-2
pairs with random negatives, ranked on the unit sphere (N).
"""

import re
from collections.abc import Callable
from dataclasses import replace

from robustdml.adversary import Adversary, Pgd
from robustdml.data.table import DATASETS, dataset
from robustdml.defenses import AntiCollapse, Defense, Plain, ShiftTraining
from robustdml.distance import Cosine, Distance, Euclidean, Spherical
from robustdml.losses import Contrastive, CrossEntropy, Hybrid, Loss, Triplet
from robustdml.mining import DistanceWeighted, Hardest, Miner, Random, SemiHard, SoftHard
from robustdml.models import BackboneHybrid, C2F2Hybrid
from robustdml.recipe import Recipe
from robustdml.recipes import networks
from robustdml.serial import nearest

SUFFIXES: dict[str, Callable[[Adversary], Defense]] = {
    "": lambda adversary: Plain(),
    "d": ShiftTraining,
    "df": lambda adversary: ShiftTraining(_one_step(adversary)),
    "p": AntiCollapse,
    "pf": lambda adversary: AntiCollapse(_one_step(adversary)),
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
    images, model, loss = parts
    known = [name for group in networks.GROUPS for name in group.classes if name in DATASETS]
    if images not in known:
        raise ValueError(_unknown("data set", images, text, known))
    found = networks.split(model, list(SUFFIXES))
    if found is None:
        models = [
            n.name + suffix for n in networks.NETWORKS.values() for suffix in networks.suffixes_of(n, list(SUFFIXES))
        ]
        raise ValueError(_unknown("model", model, text, models))
    network, suffix = found
    prefix = networks.check(network, images, loss, text)
    defense = SUFFIXES[suffix](network.group.adversary)
    fixed = networks.settings(network, suffix, images, prefix)
    trained = _loss(loss, text)
    if isinstance(fixed["model"], (C2F2Hybrid, BackboneHybrid)):
        trained = Hybrid(fixed["model"].dim, trained)
    return Recipe(
        name=text.replace(":", "-"),
        data=dataset(images),
        loss=trained,
        defense=defense,
        paper="est" if isinstance(defense, ShiftTraining) else "robrank",
        **fixed,
    )


def _one_step(adversary: Adversary) -> Adversary:
    """A single gradient that takes the whole radius (FGSM)."""
    return replace(adversary, search=Pgd(steps=1, step_size=adversary.ball.eps))


def _loss(name: str, text: str) -> Loss:
    if name == "ce":
        return CrossEntropy()
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
