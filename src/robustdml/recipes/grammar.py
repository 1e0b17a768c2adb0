"""RobRank's experiment strings, `dataset:model:loss`, as recipes (arXiv:2106.03614).

`fashion:rc2f2p:ptripletN` is Fashion-MNIST, the ranking network C2F2 with ACT (suffix p), and the triplet loss on SPC-2
pairs with random negatives, ranked on the unit sphere (N). Suffixes are in `suffixes.py`.
"""

import re

from robustdml.data.table import DATASETS as NAMED
from robustdml.data.table import Dataset
from robustdml.defenses import FreeTraining, ShiftTraining
from robustdml.losses import Loss, Margin
from robustdml.models import C2F2, LeNet, Model
from robustdml.recipe import Adam, Recipe, Sgd
from robustdml.recipes.loss_names import named_loss
from robustdml.recipes.robrank import training_adversary
from robustdml.recipes.suffixes import SUFFIXES, defended, meaningless, with_barlow
from robustdml.serial import nearest

DATASETS: dict[str, type[Dataset]] = {
    name: NAMED[name] for name in ("mnist", "fashion", "cub", "cars", "sop", "cifar10", "cifar100")
}
_OF_28 = ("mnist", "fashion")
BACKBONES: dict[str, tuple[Model, int]] = {"rc2f2": (C2F2(512), 8), "rlenet": (LeNet(128), 16)}
"""Network and epochs: upstream halves the 16 epochs for pairs, but not those of rlenet."""
_BARLOW = re.compile(r"tripletBT(?=N$)")
"""Upstream's loss with Barlow twins is a penalty of the defense here: so it goes with every defense."""


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
    models = {base + suffix: (base, suffix) for base in BACKBONES for suffix in SUFFIXES}
    if network not in models:
        why = meaningless(network, list(BACKBONES))
        raise ValueError(f"{text}: {why}" if why else _unknown("model", network, text, list(models)))
    base, suffix = models[network]
    if dataset not in _OF_28:
        raise ValueError(
            f"{text}: {base} is a network for images of 28x28 pixels, those of {dataset} are larger. Known for it: "
            f"{', '.join(_OF_28)}. The rest of RobRank's grammar comes later."
        )
    model, epochs = BACKBONES[base]
    data = DATASETS[dataset]()
    defense = defended(base, suffix, training_adversary(data.shape))
    if isinstance(defense, FreeTraining):
        epochs //= defense.repeats
    plain_loss = _BARLOW.sub("triplet", loss)
    if plain_loss != loss:
        defense = with_barlow(defense)
    trained = _loss(plain_loss, text)
    return Recipe(
        name=text.replace(":", "-"),
        data=data,
        model=model,
        loss=trained,
        defense=defense,
        optimiser=Adam(lr=1e-3, weight_decay=1e-7),
        groups={"beta": Sgd(lr=5e-4)} if isinstance(trained, Margin) else {},
        epochs=epochs,
        paper="est" if isinstance(defense, ShiftTraining) else "robrank",
    )


def _loss(name: str, text: str) -> Loss:
    try:
        return named_loss(name)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error


def _unknown(part: str, found: str, text: str, known: list[str]) -> str:
    hint = nearest(found, known)
    return f"{text}: the {part} {found!r} is not available. {hint} The rest of RobRank's grammar comes later."
