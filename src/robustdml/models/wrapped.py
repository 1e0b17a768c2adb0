"""Networks of others as embedders: behind a normalisation, with frozen statistics, or as any function of images."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustdml.models.embedder import Embedder, frozen
from robustdml.models.normalise import Normalise


class Normalised(Embedder):
    """A network behind its input normalisation; grey images are repeated over the channels it wants.

    Args:
        frozen_statistics: batch normalisation always uses its running statistics and never updates them, whoever calls
            `train()`; its scale and shift stay trainable.
    """

    def __init__(self, normalise: Normalise, inner: nn.Module, dim: int, *, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.inner = inner
        self.dim = dim
        self.frozen_statistics = frozen_statistics
        if frozen_statistics:
            for layer in batch_norms(inner):
                layer.eval()
                layer.register_forward_pre_hook(_in_evaluation_mode)  # for who calls train() on a part of the network

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        channels = len(self.normalise.mean)
        return self.inner(self.normalise(images.expand(-1, channels, -1, -1) if images.shape[1] == 1 else images))

    def train(self, mode: bool = True) -> "Normalised":
        """Training mode for everything but frozen statistics."""
        super().train(mode)
        if self.frozen_statistics:
            for layer in batch_norms(self.inner):
                layer.eval()
        return self


def batch_norms(network: nn.Module) -> Iterator[nn.Module]:
    """Its layers that keep running statistics of batches."""
    return (m for m in network.modules() if isinstance(m, _BatchNorm))


def _in_evaluation_mode(layer: nn.Module, inputs: Any) -> None:
    layer.training = False


class Wrapped(Embedder):
    """Any function from images with pixels in [0, 1] to one vector per image.

    Args:
        owner: the network whose method `inner` is, so that it is moved and frozen with this embedder.
    """

    def __init__(self, inner: Callable[[Tensor], Tensor], dim: int, owner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.dim = dim
        self.owner = owner

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        return self.inner(images)


def wrap(inner: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Embedder:
    """A module, a method of one or a function as an embedder, tried once on two grey images of this shape.

    Raises:
        ValueError: if it does not return one vector per image.
    """
    if isinstance(inner, Embedder):
        return inner
    owner = inner.__self__ if inspect.ismethod(inner) and isinstance(inner.__self__, nn.Module) else None
    module = inner if isinstance(inner, nn.Module) else owner or nn.Identity()
    return Wrapped(inner, width_of(inner, module, shape), owner)


def width_of(inner: Callable[[Tensor], Tensor], module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Length of the vectors that a function makes of images of this shape, by trying two grey ones.

    Raises:
        ValueError: if it makes anything else of them.
    """
    like = next(module.parameters(), torch.empty(0))
    with frozen(module), torch.no_grad():
        try:
            z = inner(torch.full((2, *shape), 0.5, device=like.device, dtype=like.dtype))
        except Exception as error:  # code of the user, which may fail in any way
            raise ValueError(
                f"{_name_of(inner)} failed on two images of shape {shape}: {type(error).__name__}: {error}"
            ) from error
    found, advice = type(z).__name__, "Return a torch tensor of embeddings alone."
    if isinstance(z, Tensor):
        found, advice = f"a tensor of shape {tuple(z.shape)}", "Flatten or pool its output."
        if z.dim() == 2 and len(z) == 2 and z.shape[1] > 0:
            if z.is_floating_point():
                return z.shape[1]
            found, advice = f"numbers of type {z.dtype}", "Return floating-point numbers."
    raise ValueError(
        f"an embedder maps images [b, c, h, w] to vectors [b, d]; for two images of shape {shape} {_name_of(inner)} "
        f"returned {found}. {advice}"
    )


def _name_of(inner: Callable[[Tensor], Tensor]) -> str:
    return str(getattr(inner, "__name__", type(inner).__name__))
