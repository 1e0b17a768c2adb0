"""Checkpoints of RobRank as targets: tensors under the names of our networks. Nothing in the file is executed."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from robustdml.data.errors import DataError
from robustdml.models import (
    Backbone,
    C2F2Classifier,
    C2F2Hybrid,
    LeNetClassifier,
    Perceptron,
)
from robustdml.models.backbones import source_of
from robustdml.models.embedder import Embedder
from robustdml.models.wrapped import Normalised
from robustdml.recipe import Recipe
from robustdml.unpickle import UnreadableError, tensors_in

_PREFIXES = ("backbone._orig_mod.", "backbone.")
"""The second where the network was compiled."""
_RENAMED: Mapping[type, Mapping[str, str]] = {
    C2F2Classifier: {"conv1": "layers.0", "conv2": "layers.3", "fc1": "layers.7", "fc2": "layers.10"},
    LeNetClassifier: {"conv1": "layers.0", "conv2": "layers.2", "fc1": "layers.5", "fc2": "layers.7"},
    Perceptron: {"fc1": "layers.1"},
    C2F2Hybrid: {
        **{f"repnet.{i}": f"trunk.{i}" for i in (0, 3, 7)},
        "embnet.1": "embedding_head.1",
        "clsnet.2": "class_head.2",
    },
}
"""Layers that are called otherwise there. Those of `C2F2` and `LeNet` have the same numbers here."""


def spelled(path: Path) -> str | None:
    """The experiment string that the folders of a RobRank checkpoint spell: a hint, never taken for granted."""
    for part in reversed(path.absolute().parts):
        found = re.fullmatch(r"logs_([A-Za-z0-9_]+)-([A-Za-z0-9_]+)-([A-Za-z0-9_]+)", part)
        if found:
            return ":".join(found.groups())
    return None


def robrank_weights(path: Path, recipe: Recipe, embedder: Embedder) -> dict[str, Tensor]:
    """The network of a RobRank checkpoint, under the names that `embedder`, the model of `recipe`, gives its weights.

    Raises:
        DataError: if the file is missing, is no such checkpoint, or is damaged.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Check the path.")
    try:
        tensors = tensors_in(path)
    except UnreadableError as error:
        raise DataError(f"{path}: not a checkpoint of RobRank: {error}. Nothing in it was executed.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    inside = {_without_prefix(n): t for n, t in tensors.items() if n.startswith(_PREFIXES)}
    if not inside:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise DataError(
            f"{path}: not a checkpoint of RobRank, whose weights are called backbone.…; found {some}. Convert other "
            "weights to safetensors and give them with --recipe."
        )
    if isinstance(recipe.model, Backbone):
        assert isinstance(embedder, Normalised)
        return {f"inner.{n}": t for n, t in _of_backbone(path, recipe.model.name, inside, embedder.inner).items()}
    table = _RENAMED.get(type(recipe.model))
    if table is None:
        return {f"layers.{name}": t for name, t in inside.items()}
    return {_by_layer(table, name): t for name, t in inside.items()}


def _without_prefix(name: str) -> str:
    prefix = next(p for p in _PREFIXES if name.startswith(p))
    return name.removeprefix(prefix)


def _by_layer(table: Mapping[str, str], name: str) -> str:
    layer, dot, kind = name.rpartition(".")
    return table.get(layer, layer) + dot + kind


def _of_backbone(path: Path, name: str, tensors: dict[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """Heads were put in by hand there and belong to the network here; Swin has changed its names since."""
    if name.startswith("efficientnet"):
        raise DataError(
            f"{path}: RobRank's EfficientNet is another library's, whose names are not translated. Give its weights as "
            "safetensors under the names of timm, with --recipe."
        )
    if name.startswith("mnasnet"):
        return {n.replace("classifier.", "classifier.1."): t for n, t in tensors.items()}
    return source_of(name).adapted(tensors, network)
