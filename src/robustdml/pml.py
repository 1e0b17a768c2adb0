"""pytorch-metric-learning, an optional extra: its losses and miners by name, and its distances that are ours too."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustdml.distance import Cosine, Distance, Dot, Euclidean, Spherical
from robustdml.serial import nearest

Kind = Literal["losses", "miners", "reducers", "regularizers"]
PREFIX = "pml:"
"""Begins the name of a loss or miner on the command line: pml:CircleLoss."""
_OF_THE_MODEL = {"num_classes": 0, "embedding_size": 1, "descriptors_dim": 1, "l": 1}
"""Arguments that say how many classes (0) or how wide the embedding is (1)."""
_HOLDS_LOSSES = "it takes other losses as arguments, which a recipe cannot hold"
REFUSED = {
    "VICRegLoss": "it compares two embeddings of the same images (ref_emb), and a batch has one",
    "SelfSupervisedLoss": "it compares two embeddings of the same images (ref_emb), and a batch has one",
    "CrossBatchMemory": _HOLDS_LOSSES,
    "MultipleLosses": _HOLDS_LOSSES,
    "ManifoldLoss": "it takes no labels, but clusters of its own making",
    "SmoothAPLoss": "it needs equally many images of every class in a batch, which no composition of batches promises",
    "EmbeddingsAlreadyPackagedAsTriplets": "the data says what the triplets are: use --batches TripletBatches",
}
"""What cannot be used, and why."""
_NOT_ASKED_FOR = ("distance", "collect_stats", "mat_based_loss", "weight_init_func")
"""Arguments that a recipe says otherwise, or that are no values."""
_ABSTRACT = ("Base", "Mixin", "GenericPairLoss")


def imported(part: str) -> Any:
    """A module of pytorch-metric-learning.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        return importlib.import_module(f"pytorch_metric_learning.{part}")
    except ImportError as error:
        raise ImportError(
            f"losses and miners called pml:NAME, and RobRank's pstripN, pangularN and pncaN, need the extra 'pml' "
            f"({error}). Install it with: pip install 'robustdml[pml]'"
        ) from error


def names(kind: Kind) -> list[str]:
    """Every class of this kind that can be used."""
    found = {name for name, cls in vars(imported(kind)).items() if inspect.isclass(cls)}
    return sorted(name for name in found if not any(part in name for part in _ABSTRACT) and name not in REFUSED)


def class_of(kind: Kind, name: str) -> type:
    """A class of pytorch-metric-learning.

    Raises:
        ImportError: if the library is not installed.
        ValueError: for an unknown name, with near ones, or a class that cannot be used here, with the reason.
    """
    if name in REFUSED:
        raise ValueError(f"pml:{name} cannot be used here: {REFUSED[name]}.")
    if name not in names(kind):
        raise ValueError(f"pytorch-metric-learning has no {name!r} among its {kind}. {nearest(name, names(kind))}")
    return vars(imported(kind))[name]


def made(
    kind: Kind,
    name: str,
    arguments: Mapping[str, Any],
    distance: Distance | None = None,
    model: tuple[int, int] = (2, 2),
) -> nn.Module:
    """An object of pytorch-metric-learning, its tensors all part of its state.

    Args:
        arguments: keywords of its constructor; `reducer`, `embedding_regularizer` and `weight_regularizer` take the
            name of a class, or a dictionary of "name" and its arguments.
        distance: what it shall compare embeddings with; its own choice if `None`.
        model: number of classes and width of the embedding, for those that ask.

    Raises:
        ImportError: if the library is not installed.
        ValueError: for an unknown name or argument, with the nearest known ones; for one that is missing; for a class
            that cannot be used here; for a distance that it does not take.
    """
    cls = class_of(kind, name)
    accepted = _parameters(cls)
    unknown = [key for key in arguments if key not in accepted]
    if unknown:
        raise ValueError(f"pml:{name} has no argument {unknown[0]!r}. {nearest(unknown[0], sorted(accepted))}")
    given = {key: _part(key, value) for key, value in arguments.items()}
    for key, which in _OF_THE_MODEL.items():
        if accepted.get(key) is inspect.Parameter.empty:
            given.setdefault(key, model[which])
    own = _constructed(cls, name, given)
    if distance is None or kind not in ("losses", "miners") or distance_of(own) in (distance, None):
        return own
    try:
        return _constructed(cls, name, given | {"distance": _counterpart(distance, own.distance)})
    except AssertionError as error:
        said, other = f" ({error})" if str(error) else "", type(distance_of(own)).__name__
        raise ValueError(
            f"pml:{name} does not compare embeddings with {type(distance).__name__}(){said}. Its own distance is "
            f"{other}(): set it with --loss.distance {other}"
        ) from error


def distance_of(made_there: Any) -> Distance | None:
    """Which of our distances an object of theirs compares embeddings with; `None` if we have none like it."""
    theirs, unit = made_there.distance, made_there.distance.normalize_embeddings
    kinds = imported("distances")
    if isinstance(theirs, kinds.CosineSimilarity):
        return Cosine()
    if isinstance(theirs, kinds.DotProductSimilarity):
        return Cosine() if unit else Dot()
    if isinstance(theirs, kinds.LpDistance) and theirs.p == 2:
        return Spherical() if unit else Euclidean()
    return None


def _counterpart(distance: Distance, own: Any) -> Any:
    kinds = imported("distances")
    power = own.power if isinstance(own, kinds.LpDistance) else 1  # some losses take squared distances
    if isinstance(distance, (Euclidean, Spherical)):
        return kinds.LpDistance(normalize_embeddings=isinstance(distance, Spherical), power=power)
    if isinstance(distance, Cosine):
        return kinds.CosineSimilarity()
    if isinstance(distance, Dot):
        return kinds.DotProductSimilarity(normalize_embeddings=False)
    raise ValueError(
        f"pytorch-metric-learning has no distance like {type(distance).__name__}(). Use Spherical(), Euclidean(), "
        "Cosine() or Dot()."
    )


def _parameters(cls: type) -> dict[str, object]:
    """Keyword arguments of a constructor with their defaults, those handed on to the classes above it included."""
    found: dict[str, object] = {}
    for level in cls.__mro__:
        if "__init__" not in vars(level):
            continue
        own = list(inspect.signature(vars(level)["__init__"]).parameters.values())[1:]
        for p in own:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in _NOT_ASKED_FOR:
                found.setdefault(p.name, p.default)
        if not any(p.kind == p.VAR_KEYWORD for p in own):
            break
    return found


def _part(key: str, value: Any) -> Any:
    """A reducer or regulariser of a name; anything else as it is."""
    kinds: dict[str, Kind] = {"reducer": "reducers", "embedding_regularizer": "regularizers"}
    kinds["weight_regularizer"] = "regularizers"
    if key not in kinds or value is None:
        return value
    settings = dict(value) if isinstance(value, Mapping) else {"name": value}
    return made(kinds[key], settings.pop("name", ""), settings)


def _constructed(cls: type, name: str, given: dict[str, Any]) -> Any:
    try:
        found = cls(**given)
    except (TypeError, ValueError) as error:
        said = str(error).removeprefix(f"{cls.__name__}.__init__() ")
        raise ValueError(
            f"pml:{name}: {said}. Arguments are set with --loss.arguments.NAME VALUE (or --loss.miner.arguments.NAME "
            'VALUE), in a recipe.json as "arguments": {"NAME": VALUE}.'
        ) from error
    for module in found.modules():  # a tensor that is no buffer would be lost between two checkpoints
        for key, tensor in [(k, v) for k, v in vars(module).items() if isinstance(v, torch.Tensor)]:
            delattr(module, key)
            module.register_buffer(key, tensor)
    return found


def empty(tuples: tuple[Tensor, ...]) -> bool:
    """Whether a miner of theirs found nothing at all."""
    return all(len(rows) == 0 for rows in tuples)


def cut_history(module: nn.Module) -> None:
    """Take running statistics out of the graph of this step: the next one could not pass backward through it again."""
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.requires_grad:
                setattr(part, name, buffer.detach())
