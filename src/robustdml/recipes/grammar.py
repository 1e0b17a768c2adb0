"""RobRank's experiment strings, `dataset:model:loss`, as recipes (arXiv:2106.03614).

`fashion:rc2f2p:ptripletN` is Fashion-MNIST, the ranking network C2F2 with ACT (suffix p), and the triplet loss on SPC-2
pairs with random negatives, ranked on the unit sphere (N). Suffixes are in `suffixes.py`.
"""

import re
from dataclasses import replace

from robustdml.data.table import DATASETS, dataset
from robustdml.defenses import Defense, FreeTraining, ShiftTraining
from robustdml.distance import Spherical
from robustdml.losses import CrossEntropy, Hybrid, Loss, Margin, Triplet
from robustdml.models import HYBRIDS
from robustdml.recipe import Adam, Recipe, Sgd
from robustdml.recipes import networks
from robustdml.recipes.loss_names import NOTES, named_loss
from robustdml.recipes.suffixes import (
    MANIPULATION,
    SUFFIXES,
    defended,
    is_suffix,
    manipulation,
    meaningless,
    sampler,
    with_barlow,
)
from robustdml.serial import nearest

_BARLOW = re.compile(r"^(p\w?triplet)BT(?=N$)")
"""Upstream's loss with Barlow twins is a penalty of the defense here: so it goes with every defense."""


def from_string(text: str) -> Recipe:
    """The recipe of an experiment string.

    Raises:
        ValueError: naming the part that is not known, and what is; or why the parts cannot be trained together.
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
    found = networks.split(model, is_suffix)
    if found is None:
        ranking = [n.name for n in networks.NETWORKS.values() if n.task == "ranking"]
        why = meaningless(model, ranking)
        if why:
            raise ValueError(f"{text}: {why}")
        suffixes = ", ".join(s for s in SUFFIXES if s)
        said = _unknown("model", model, text, list(networks.NETWORKS))
        raise ValueError(f"{said} Suffixes of networks for ranking: {suffixes}, {MANIPULATION}.")
    network, suffix = found
    plain_loss = _BARLOW.sub(r"\1", loss)
    fixed = networks.settings(network, suffix, images, networks.check(network, images, plain_loss, text))
    trained = _loss(plain_loss, text)
    defense = defended(network.name, suffix, network.group.adversary, images, trained.distance)
    if isinstance(defense, FreeTraining):
        fixed["epochs"] //= defense.repeats
    if plain_loss != loss:
        defense = with_barlow(defense)
    notes = [NOTES.get(plain_loss)]
    hardness = manipulation(suffix)
    if hardness and not isinstance(trained.distance, Spherical):
        raise ValueError(f"{text}: hardness manipulation is defined on the unit sphere. Use {plain_loss[:-1]}N.")
    if hardness and hardness.idle:
        if not isinstance(trained, Triplet):
            raise ValueError(f"{text}: hardness manipulation that moves nothing is known of the triplet loss alone.")
        trained = replace(trained, miner=sampler(hardness.source, trained.distance))
        notes.append("source and destination are equal, so nothing is moved: plain training with that sampler")
    groups: dict[str, Adam | Sgd] = {"beta": Sgd(lr=5e-4)} if isinstance(trained, Margin) else {}
    if isinstance(fixed["model"], HYBRIDS):
        if plain_loss != loss:
            raise ValueError(f"{text}: Barlow twins would see class scores of {network.name} too. Use {plain_loss}.")
        trained = Hybrid(fixed["model"].dim, trained)
    fixed["note"] = "; ".join(note for note in (fixed["note"], *notes) if note)
    try:
        return Recipe(
            name=text.replace(":", "-"),
            data=dataset(images),
            loss=trained,
            defense=defense,
            groups=groups,
            paper=_paper(suffix, defense),
            **fixed,
        )
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error


def _paper(suffix: str, defense: Defense) -> str:
    if suffix == "hmix" or manipulation(suffix):
        return "robdml"
    return "est" if isinstance(defense, ShiftTraining) else "robrank"


def _loss(name: str, text: str) -> Loss:
    if name == "ce":
        return CrossEntropy()
    try:
        return named_loss(name)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error


def _unknown(part: str, found: str, text: str, known: list[str]) -> str:
    return f"{text}: the {part} {found!r} is not available. {nearest(found, known)}"
