"""RobRank's experiment strings, `dataset:model:loss`, as recipes (arXiv:2106.03614).

`fashion:rc2f2p:ptripletN` is Fashion-MNIST, the ranking network C2F2 with ACT (suffix p), and the triplet loss on SPC-2
pairs with random negatives, ranked on the unit sphere (N).
"""

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.idx import Fashion, Mnist
from robustdml.defenses import AntiCollapse, Defense, Plain, ShiftTraining
from robustdml.losses import Loss, Margin
from robustdml.models import C2F2, LeNet, Model
from robustdml.recipe import Adam, Recipe, Sgd
from robustdml.recipes.loss_names import named_loss
from robustdml.serial import nearest

DATASETS: dict[str, type[Mnist] | type[Fashion]] = {"mnist": Mnist, "fashion": Fashion}
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
    model, epochs = BACKBONES[base]
    trained = _loss(loss, text)
    return Recipe(
        name=text.replace(":", "-"),
        data=DATASETS[dataset](),
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
