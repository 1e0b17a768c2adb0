"""The model part of RobRank's experiment strings: networks, and what each fixes of a training (arXiv:2106.03614).

A model is called after its task (c classification, r ranking, h hybrid) and its backbone. Data sets belong to
three groups of image sizes, and every network to one of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustdml.adversary import Adversary
from robustdml.data.batches import Batches, ClassBatches, Spc2, TripletBatches
from robustdml.models import (
    C2F2,
    Backbone,
    BackboneHybrid,
    C2F2Classifier,
    C2F2Hybrid,
    LeNet,
    LeNetClassifier,
    Model,
    Perceptron,
    Pretrained,
)
from robustdml.recipe import Adam, Sgd, Validation
from robustdml.recipes.robrank import ADVERSARY_28, ADVERSARY_224

Task = Literal["classification", "ranking", "hybrid"]
Prefix = Literal["c", "p", "t"]
"""Of a loss: class batches, pairs or ready triplets; classification counts as the first."""


@dataclass(frozen=True)
class Group:
    """Data sets with images of one size.

    Attributes:
        classes: of both splits together, which is what labels range over.
        adversary: with which networks of the group are trained.
    """

    side: int
    classes: Mapping[str, int]
    adversary: Adversary


SMALL = Group(28, {"mnist": 10, "fashion": 10}, ADVERSARY_28)
TINY = Group(32, {"cifar10": 10, "cifar100": 100}, ADVERSARY_224)
LARGE = Group(224, {"cub": 200, "cars": 196, "sop": 22634}, ADVERSARY_224)
GROUPS = (SMALL, TINY, LARGE)
_BACKBONES = {
    "res18": "resnet18",
    "res50": "resnet50",
    "mnas05": "mnasnet0_5",
    "mnas10": "mnasnet1_0",
    "ibn": "bninception",
    "effb0": "efficientnet_b0",
    "swint": "swin_tiny",
    "swins": "swin_small",
    "swinb": "swin_base",
    "swinl": "swin_large",
}
_UNFROZEN = {("rres18", "d"), ("rres50", "d"), ("rmnas10", "d")}
"""Networks and suffixes whose batch statistics RobRank leaves unfrozen, by an accident of its flags (EST)."""


@dataclass(frozen=True)
class Network:
    """A model name without its suffix, and what it fixes.

    Attributes:
        epochs: by the loss's batches, as published.
        items: images, pairs or triplets per batch, likewise.
        note: how published practice departs from what one would expect.
    """

    name: str
    task: Task
    group: Group
    epochs: Mapping[Prefix, int]
    items: Mapping[Prefix, int]
    optimiser: Adam | Sgd
    validate_every: int = 1
    note: str = ""


_ADAM_28 = Adam(lr=1e-3, weight_decay=1e-7)
_ADAM_224 = Adam(lr=1e-5, weight_decay=4e-4)
_SGD = Sgd(lr=0.1, momentum=0.9, weight_decay=2e-4)
_ITEMS_28: Mapping[Prefix, int] = {"c": 128, "p": 128, "t": 128}
_ITEMS_224: Mapping[Prefix, int] = {"c": 112, "p": 56, "t": 37}
_LENET_NOTE = "16 epochs of pairs as RobRank trains it, where its own rule would give 8"


def _classifier(name: str, group: Group, epochs: int, items: int, optimiser: Adam | Sgd) -> Network:
    return Network(name, "classification", group, {"c": epochs}, {"c": items}, optimiser)


NETWORKS: Mapping[str, Network] = {
    n.name: n
    for n in (
        Network("rc2f2", "ranking", SMALL, {"c": 16, "p": 8, "t": 5}, _ITEMS_28, _ADAM_28),
        Network("rlenet", "ranking", SMALL, {"c": 16, "p": 16, "t": 16}, _ITEMS_28, _ADAM_28, note=_LENET_NOTE),
        *(
            Network(f"r{short}", "ranking", LARGE, {"c": 150, "p": 75, "t": 50}, _ITEMS_224, _ADAM_224, 5)
            for short in _BACKBONES
        ),
        _classifier("cslp", SMALL, 10, 1000, _ADAM_28),
        _classifier("clenet", SMALL, 10, 1000, _ADAM_28),
        _classifier("cc2f2", SMALL, 16, 1000, _ADAM_28),
        _classifier("cres18", TINY, 200, 256, _SGD),
        _classifier("cres50", TINY, 200, 256, _SGD),
        Network("hc2f2", "hybrid", SMALL, {"p": 8}, {"p": 128}, _ADAM_28),
        Network("hres18", "hybrid", LARGE, {"p": 75}, {"p": 56}, _ADAM_224, 5),
    )
}


def split(name: str, is_suffix: Callable[[str], bool]) -> tuple[Network, str] | None:
    """The network and the suffix of a model name; `None` if it is no network followed by a suffix.

    Defenses of metrics do not go with classifiers, and hybrids have none.
    """
    for network in NETWORKS.values():
        suffix = name.removeprefix(network.name)
        if suffix != name and (is_suffix(suffix) if network.task == "ranking" else suffix == ""):
            return network, suffix
    return None


def check(network: Network, dataset: str, loss: str, text: str) -> Prefix:
    """The kind of batches of a string, if its parts may be combined.

    Raises:
        ValueError: naming the part that does not fit, and what does.
    """
    if dataset not in network.group.classes:
        fitting = ", ".join(network.group.classes)
        raise ValueError(
            f"{text}: {network.name} takes images of {network.group.side}x{network.group.side}, which {dataset} has "
            f"not. It goes with {fitting}."
        )
    if (network.task == "classification") != (loss == "ce"):
        wanted = (
            "the loss ce" if network.task == "classification" else "a metric loss such as ptripletN, and ce with c…"
        )
        raise ValueError(f"{text}: {network.name} does {network.task}, which goes with {wanted}.")
    if loss == "ce":
        return "c"
    prefix: Prefix = "c" if loss.startswith("c") else "t" if loss.startswith("t") else "p"
    if prefix not in network.epochs:
        raise ValueError(f"{text}: {network.name} is trained on pairs; use a loss that begins with p, e.g. ptripletN.")
    return prefix


def settings(network: Network, suffix: str, dataset: str, prefix: Prefix) -> dict[str, Any]:
    """Fields of the recipe that the network fixes: model, start, batches, optimiser, epochs, milestones, validation."""
    classes = network.group.classes[dataset]
    large = network.group is LARGE
    return {
        "model": _model(network, suffix, classes),
        "start": Pretrained() if large else None,
        "batches": _batches(prefix, network.items[prefix]),
        "optimiser": network.optimiser,
        "epochs": _epochs(network, dataset, prefix),
        "milestones": _milestones(network, dataset),
        "validation": Validation(every=network.validate_every),
        "note": network.note,
    }


def _epochs(network: Network, dataset: str, prefix: Prefix) -> int:
    if network.group is TINY and dataset == "cifar100":
        return 300
    if network.name == "hres18" and dataset == "sop":
        return 50
    return network.epochs[prefix]


def _milestones(network: Network, dataset: str) -> tuple[int, ...]:
    if network.group is not TINY:
        return ()
    return (100, 200) if dataset == "cifar100" else (100, 150)


def _batches(prefix: Prefix, items: int) -> Batches:
    if prefix == "p":
        return Spc2(items)
    return ClassBatches(items) if prefix == "c" else TripletBatches(items)


def _model(network: Network, suffix: str, classes: int) -> Model:
    small: dict[str, Model] = {
        "rc2f2": C2F2(512),
        "rlenet": LeNet(128),
        "cslp": Perceptron(classes),
        "clenet": LeNetClassifier(classes),
        "cc2f2": C2F2Classifier(classes),
        "hc2f2": C2F2Hybrid(512, classes),
    }
    if network.name in small:
        return small[network.name]
    backbone = _BACKBONES[network.name[1:]]
    if network.task == "classification":
        return Backbone(backbone, classes)
    if network.task == "hybrid":
        return BackboneHybrid(backbone, 512, classes, "frozen-statistics")
    return Backbone(backbone, 512, "train" if (network.name, suffix) in _UNFROZEN else "frozen-statistics")
