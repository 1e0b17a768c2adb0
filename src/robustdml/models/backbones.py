"""Large backbones from timm, an optional extra, and models that a user's own code returns."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustdml.models.embedder import Embedder, frozen
from robustdml.models.normalise import Normalise


def import_timm() -> ModuleType:
    """timm, with a working torchvision.

    A torchvision from the package index beside a CPU-only torch does not import: its compiled file wants CUDA
    libraries, so that the operators `nms` and `qnms` are never defined, and timm fails with it. On exactly that error
    torchvision is imported again with the two operators declared; declaring them where the real library loads would
    abort.

    Raises:
        ImportError: with the command that installs the extra.
    """
    try:
        return _import_timm()
    except ImportError as error:
        raise ImportError(
            f"models from timm need the extra 'vision' ({error}). Install it with: pip install 'robustdml[vision]'"
        ) from error


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [n for n in sys.modules if n.split(".")[0] in ("torchvision", "timm")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    return importlib.import_module("timm")


_KEPT: list[Any] = []
"""Operators vanish with the library object that defined them."""


class Normalised(Embedder):
    """A network behind its input normalisation; grey images are repeated over the channels it wants."""

    def __init__(self, normalise: Normalise, inner: nn.Module, dim: int) -> None:
        super().__init__()
        self.normalise = normalise
        self.inner = inner
        self.dim = dim

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        channels = len(self.normalise.mean)
        return self.inner(self.normalise(images.expand(-1, channels, -1, -1) if images.shape[1] == 1 else images))


def timm_embedder(name: str, *, pretrained: bool = True) -> Embedder:
    """The pooled features of a timm model, with the input normalisation of its weights.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if timm has no such model.
    """
    timm = import_timm()
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        near = ", ".join(timm.list_models(f"*{name.split('.', maxsplit=1)[0][:6]}*")[:5])
        raise ValueError(f"timm has no model {name!r}. Perhaps: {near or 'see timm.list_models()'}.") from error
    known = network.pretrained_cfg
    return Normalised(Normalise(tuple(known["mean"]), tuple(known["std"])), network, network.num_features)


class Wrapped(Embedder):
    """Any function from images with pixels in [0, 1] to one vector per image."""

    def __init__(self, inner: Callable[[Tensor], Tensor], dim: int) -> None:
        super().__init__()
        self.inner = inner
        self.dim = dim

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        return self.inner(images)


def wrap(inner: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Embedder:
    """A module or function as an embedder, tried once on two grey images of this shape.

    Raises:
        ValueError: if it does not return one vector per image.
    """
    if isinstance(inner, Embedder):
        return inner
    module = inner if isinstance(inner, nn.Module) else nn.Identity()
    like = next(module.parameters(), torch.empty(0))
    with frozen(module), torch.no_grad():
        z = inner(torch.full((2, *shape), 0.5, device=like.device, dtype=like.dtype))
    if not isinstance(z, Tensor) or z.dim() != 2 or len(z) != 2:
        found = f"a tensor of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"an embedder maps images [b, c, h, w] to vectors [b, d]; for two images of shape {shape} "
            f"{getattr(inner, '__name__', type(inner).__name__)} returned {found}. Flatten or pool its output."
        )
    return Wrapped(inner, z.shape[1])
