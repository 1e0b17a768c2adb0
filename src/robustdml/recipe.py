"""A recipe: everything that determines a training run, and its JSON form."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache
from typing import Any, Literal, get_type_hints

import torch
from torch.nn import Parameter

from robustdml import pml
from robustdml.adversary import BALLS, SEARCHES, Adversary
from robustdml.data.batches import Batches, ClassBatches, Spc2, TripletBatches
from robustdml.data.folder import Folder
from robustdml.data.table import DATASETS, Dataset
from robustdml.data.transforms import TRANSFORMS
from robustdml.defenses import DEFENSES, DESTINATIONS, PENALTIES, Defense, FreeTraining, Plain, Replay, TeacherMatching
from robustdml.defenses.defense import made_of
from robustdml.distance import DISTANCES
from robustdml.losses import LOSSES, Hybrid, Loss, pml_loss
from robustdml.mining import MINERS, pml_miner
from robustdml.models import HYBRIDS, MODELS, Backbone, BackboneHybrid, Model, Pretrainable, Pretrained
from robustdml.plugins import installed
from robustdml.serial import Json, read_as, to_json, with_field
from robustdml.types import RunReference

NOUNS: dict[str, Mapping[str, type]] = {
    "datasets": {**DATASETS, "folder": Folder},
    "transforms": TRANSFORMS,
    "models": MODELS,
    "distances": DISTANCES,
    "miners": MINERS,
    "losses": LOSSES,
    "balls": BALLS,
    "searches": SEARCHES,
    "defenses": DEFENSES,
    "destinations": DESTINATIONS,
    "penalties": PENALTIES,
}


@dataclass(frozen=True)
class Adam:
    """Adam with the L2 penalty added to the gradient, not decoupled (betas 0.9 and 0.999)."""

    lr: float = 1e-3
    weight_decay: float = 0.0

    def build(self, parameters: list[Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these weights."""
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, with the L2 penalty added to the gradient."""

    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0

    def build(self, parameters: list[Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these weights."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Validation:
    """Part of the training images held out to watch a run: class-disjoint where the data set is zero-shot.

    Args:
        share: of the training images (or classes); 0 for none, as published recipes have it.
        every: epochs between validations.
        choose: whether the checkpoint with the best recall@1 is kept as `checkpoints/best` and reported.
    """

    share: float = 0.0
    every: int = 1
    choose: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"Validation needs 0 <= share < 1, got {self.share}.")
        if self.every < 1:
            raise ValueError(f"Validation needs every >= 1 epochs, got {self.every}.")


@dataclass(frozen=True)
class Recipe:
    """One training run. A variant is `dataclasses.replace` of another recipe.

    Args:
        name: what `train` and the tables call it.
        optimiser: settings of every parameter group that `groups` does not name.
        groups: settings by parameter group of the model or the loss.
        alternate: whether the groups step in turn, each on a forward and backward pass of its own over the same batch,
            as RobRank trains the boundary of the margin loss; else one pass serves all.
        epochs: passes over the training images; one SPC-2 pass sees each image about twice.
        milestones: epochs after which every learning rate is divided by 10.
        decay: "cosine" lowers learning rates to 0 over the training instead, along half a cosine.
        averaging: decay of the exponential moving average of the weights, one update per optimiser step; it is what
            checkpoints hold and validation judges, while training goes on from the weights themselves. 0 for none.
        start: weights to begin with: those of a run, or published ones of a backbone.
        precision: "bf16" runs the network in bfloat16 with channels last; weights, losses and ranking stay fp32.
        accumulate: parts into which a batch is cut, each mined on its own, before one optimiser step.
        clip: largest global norm of the gradient, `None` for no clipping.
        damaged: whether an image that cannot be decoded stops the training ("refuse"), or its pair is left out of the
            step with a warning ("skip").
        paper: key of the publication it reproduces.
        note: how it departs from that.

    Raises:
        ValueError: for combinations that cannot be trained.
    """

    name: str
    data: Dataset
    model: Model
    loss: Loss
    defense: Defense = field(default_factory=Plain)
    batches: Batches = field(default_factory=Spc2)
    optimiser: Adam | Sgd = field(default_factory=Adam)
    groups: dict[str, Adam | Sgd] = field(default_factory=dict)
    alternate: bool = False
    epochs: int = 8
    milestones: tuple[int, ...] = ()
    decay: Literal["milestones", "cosine"] = "milestones"
    averaging: float = 0.0
    start: RunReference | Pretrained | None = None
    validation: Validation = field(default_factory=Validation)
    precision: Literal["fp32", "bf16"] = "fp32"
    accumulate: int = 1
    clip: float | None = None
    damaged: Literal["refuse", "skip"] = "refuse"
    seed: int = 0
    paper: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"a recipe needs epochs >= 1, got {self.epochs}.")
        if self.accumulate < 1 or self.accumulate > self.batches.items:
            raise ValueError(f"accumulate must be 1 … {self.batches.items} (items per batch), got {self.accumulate}.")
        if self.accumulate > 1 and any(isinstance(d, (FreeTraining, Replay)) for d in made_of(self.defense)):
            raise ValueError(
                f"FreeTraining and Replay repeat whole batches, and accumulate={self.accumulate} cuts them. Set "
                "--accumulate 1, and smaller batches where memory is short."
            )
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"milestones are epochs from 1 on, each later than the one before, got {self.milestones}.")
        if self.decay == "cosine" and self.milestones:
            raise ValueError(f"decay is cosine, so milestones {self.milestones} mean nothing. Set --milestones none.")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1), 0 for none and usually 0.999, got {self.averaging}.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None for no clipping, got {self.clip}.")
        if isinstance(self.start, Pretrained) and not isinstance(self.model, Pretrainable):
            raise ValueError(
                f"no weights are published for {type(self.model).__name__}. Begin with random ones (--start none), or "
                "use a Backbone."
            )
        if self.start is None and isinstance(self.model, (Backbone, BackboneHybrid)) and self.model.frozen:
            raise ValueError(
                f"{self.model.name} with frozen batch statistics needs weights that bring statistics. Set --start "
                "Pretrained, or --model.batchnorm train to learn them."
            )
        if self.validation.choose and self.validation.share == 0:
            raise ValueError(
                "Validation cannot choose a checkpoint without held-out images. Set --validation.share, e.g. 0.1."
            )
        if self.start is None and any(isinstance(d, TeacherMatching) for d in made_of(self.defense)):
            raise ValueError(
                "TeacherMatching stays near the weights it begins with, and these are random. Set --start RUN, or "
                "--start Pretrained where weights are published."
            )
        model, loss = self.model, self.loss
        if isinstance(loss, Hybrid) and isinstance(model, HYBRIDS) and loss.width != model.dim:
            raise ValueError(
                f"the loss takes {loss.width} numbers for the embedding and {type(model).__name__} gives {model.dim}. "
                f"Type --model.dim {loss.width}, which sets both."
            )
        self.defense.check(self.loss)

    def shrinkage(self, epoch: float) -> float:
        """What the learning rates are multiplied with after so many epochs."""
        if self.decay == "cosine":
            return (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return 0.1 ** sum(m <= epoch for m in self.milestones)


OWN = (Recipe, Adam, Sgd, Validation, Spc2, ClassBatches, TripletBatches, Adversary, RunReference, Pretrained)
"""Classes of recipes and profiles that belong to no noun."""


@cache
def component_types() -> dict[str, type]:
    """Every class a recipe or profile file may name."""
    table: dict[str, type] = {c.__name__: c for c in OWN}
    for noun, own in NOUNS.items():
        table |= {**{cls.__name__: cls for cls in own.values()}, **installed(noun)}
    return table


def recipe_to_json(recipe: Recipe) -> Json:
    """Every resolved field with the type of each component; enough to run again."""
    return to_json(recipe)


def recipe_from_json(value: Json, where: str = "recipe.json") -> Recipe:
    """The recipe written by `recipe_to_json`.

    Raises:
        ValueError: naming the field that is unknown or malformed.
    """
    return read_as(Recipe, value, component_types(), where)


_STARTS = (*(cls.__name__ for cls in (RunReference, Pretrained)), "none")


def override(recipe: Recipe, path: str, text: str) -> Recipe:
    """The recipe with one field set from the command line; see `overridden`."""
    return overridden(recipe, [(path, text)])


def overridden(recipe: Recipe, settings: Sequence[tuple[str, object]]) -> Recipe:
    """The recipe with fields set from the command line, e.g. `defense.adversary.ball.eps`, `8/255`, or to components.

    `pml:NAME` stands for a loss, or in a field called `miner` for a miner, of pytorch-metric-learning. The loss of a
    hybrid follows the width of its model. `start` takes the path of a run too. Only what all settings make together
    must be trainable, so that a defense and the loss it needs can be set in either order.

    Raises:
        ValueError: naming the setting that has no meaning, or all of them where their sum cannot be trained.
    """
    twice = [path for path, count in Counter(path for path, _ in settings).items() if count > 1]
    if twice:
        inside = " Of two that go around a defense set one inside: --defense.inner." if twice[0] == "defense" else ""
        raise ValueError(f"--{twice[0]} is given twice, and only one value can hold.{inside}")
    draft = _Draft(**{f.name: getattr(recipe, f.name) for f in fields(Recipe)})
    for path, value in settings:
        draft = _set(draft, path, value)
    try:
        return Recipe(**vars(draft))
    except ValueError as error:
        raise ValueError(f"{' '.join(f'--{path} {value}' for path, value in settings)}: {error}") from error


_Draft = make_dataclass("Recipe", list(get_type_hints(Recipe).items()), frozen=True)
"""The fields of a recipe before anything is asked of them together."""


def _set(draft: Any, path: str, value: object) -> Any:
    if isinstance(value, str) and (path == "start.path" or (path == "start" and value not in _STARTS)):
        path, value = "start", RunReference(value)
    if isinstance(value, str) and value.startswith(pml.PREFIX):
        name = value.removeprefix(pml.PREFIX)
        value = pml_miner(name) if path.endswith("miner") else pml_loss(name)
    draft = with_field(draft, path, value, component_types())
    loss, model = draft.loss, draft.model
    if path.split(".", maxsplit=1)[0] == "model" and isinstance(loss, Hybrid) and isinstance(model, HYBRIDS):
        draft = replace(draft, loss=replace(loss, width=model.dim))
    return draft
