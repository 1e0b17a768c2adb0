"""Checkpoints of RobRank as targets: tensors under the names of our networks. Nothing in the file is executed."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from robustdml.data.errors import DataError
from robustdml.models import (
    Backbone,
    BackboneHybrid,
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
        return {f"inner.{n}": t for n, t in _of_backbone(recipe.model.name, inside, embedder.inner).items()}
    if isinstance(recipe.model, BackboneHybrid):
        return {_of_hybrid(n): t for n, t in inside.items()}
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


def _of_hybrid(name: str) -> str:
    """The parts are called as in the small hybrid; the trunk is a ResNet without head."""
    part, dot, rest = name.partition(".")
    return {"repnet": "trunk.inner", "embnet": "embedding_head", "clsnet": "class_head"}.get(part, part) + dot + rest


def _of_backbone(name: str, tensors: dict[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """Heads were put in by hand there and belong to the network here; Swin has changed its names since."""
    if name.startswith("efficientnet"):
        return _efficientnet(tensors, network)
    if name.startswith("mnasnet"):
        return {n.replace("classifier.", "classifier.1."): t for n, t in tensors.items()}
    return source_of(name).adapted(tensors, network)


_EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_SEPARABLE = _EXPANDING | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""A block of the first stage, which widens nothing."""
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def _efficientnet(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """RobRank's EfficientNet is that of `efficientnet_pytorch`: blocks are counted through, timm's within stages."""
    stages = {n.rsplit(".", 1)[0] for n, _ in network.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+\.\w+", n)}
    blocks = sorted(stages, key=lambda n: [int(k) for k in n.split(".")[1:]])

    def translated(name: str) -> str:
        layer, dot, kind = name.rpartition(".")
        inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer)
        if inner is None:
            return _AROUND.get(layer, layer) + dot + kind
        number = int(inner[1])
        block = blocks[number] if number < len(blocks) else f"blocks.{number}"
        table = _SEPARABLE if block.startswith("blocks.0.") else _EXPANDING
        return f"{block}.{table.get(inner[2], inner[2])}{dot}{kind}"

    return {translated(n): t for n, t in tensors.items()}
