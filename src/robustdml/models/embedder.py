"""The embedder: images to embeddings, with everything a caller must not think about inside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter


class Embedder(nn.Module):
    """Maps images with pixels in [0, 1] to raw embeddings; input normalisation is the first thing inside.

    Attributes:
        dim: width of the embedding.
        lipschitz: l2 Lipschitz constant from pixels to embedding, `None` if nothing is guaranteed.
    """

    dim: int
    lipschitz: float | None = None

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Weights by the name under which a recipe gives them optimiser settings."""
        return {"trunk": [p for p in self.parameters() if p.requires_grad]}


class Layers(Embedder):
    """An embedder that is a chain of layers."""

    def __init__(self, dim: int, *layers: nn.Module, lipschitz: float | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.lipschitz = lipschitz
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        return self.layers(images)


class Bfloat16(Embedder):
    """Runs an embedder in bfloat16 with channels last and returns float32; the weights it trains stay float32.

    Training steps and adversaries run it so; `DeepMetric.embed`, which everything scored comes from, does not.
    """

    def __init__(self, inner: Embedder) -> None:
        super().__init__()
        self.inner = inner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        self.dim = inner.dim
        self.lipschitz = None  # rounding inside voids any proof
        self.training = inner.training

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embed a batch."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.inner(images.contiguous(memory_format=torch.channels_last)).float()

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Those of the wrapped embedder."""
        return self.inner.parameter_groups()


def in_float32(embedder: Embedder) -> Embedder:
    """The embedder without `Bfloat16` around it."""
    return embedder.inner if isinstance(embedder, Bfloat16) else embedder


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put some tensors into a module, by name; the others stay.

    They go through its own state, which carries the versions of formats that some networks ask for (MNASNet).
    """
    state = module.state_dict()
    state.update(tensors)
    module.load_state_dict(state)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient to weights, and everything as before afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    module.eval()
    for p, _ in wanted:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
        for p, requires_grad in wanted:
            p.requires_grad_(requires_grad)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients to weights, and the modes as before afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
