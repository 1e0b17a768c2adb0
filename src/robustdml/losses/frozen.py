"""Cross-entropy over frozen class prototypes."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robustdml.distance import Cosine, Distance
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import of_directions
from robustdml.types import Triplets


@dataclass(frozen=True)
class FrozenPrototypes:
    """mean_i [ln sum_k e^{s cos(z_i, P_k)} - s cos(z_i, P_y)] with s = 1 / temperature (TeCoA, arXiv:2212.07016).

    The prototypes, of text or the means of classes under another model, are read once and never trained.

    Args:
        file: safetensors file with one tensor [classes, dim], row k for label k; random directions without it.
        temperature: published 0.01 for text embeddings.
        distance: of the model; `Cosine` and `Spherical` order as the scores do.
    """

    file: str = ""
    temperature: float = 0.07
    distance: Distance = field(default_factory=Cosine)

    parameter_groups = no_weights

    def __post_init__(self) -> None:
        of_directions(self, self.distance)
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"FrozenPrototypes needs a finite temperature > 0, got {self.temperature}.")

    def build(self, num_classes: int, dim: int) -> "BuiltPrototypes":
        """With the prototypes of the file.

        Raises:
            OSError: if the file is missing or damaged.
            ValueError: if it holds something else.
        """
        if not self.file:
            return BuiltPrototypes(self, Draws(0).normal("prototypes", torch.arange(num_classes, device="cpu"), (dim,)))
        path = Path(self.file).expanduser()
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"{path}: no readable safetensors file ({error}). Write one with safetensors.torch.save_file("
                "{'prototypes': tensor}, path), a row of the tensor per class."
            ) from error
        found = list(tensors.values())
        if len(found) != 1 or found[0].ndim != 2 or found[0].shape[1] != dim or len(found[0]) < num_classes:
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
            raise ValueError(
                f"{path} holds {shapes}; expected one tensor of {num_classes} or more rows, one per class, and {dim} "
                "columns, as the model has dimensions."
            )
        return BuiltPrototypes(self, found[0].float())

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The loss as it is built."""
        return self.build(int(labels.max()) + 1, z.shape[1]).to(z.device)(z, labels, triplets, draws=draws, index=index)


class BuiltPrototypes(nn.Module):
    """The loss with its prototypes."""

    prototypes: Tensor

    def __init__(self, config: FrozenPrototypes, prototypes: Float[Tensor, "k d"]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("prototypes", F.normalize(prototypes, dim=1))

    build, parameter_groups = itself, no_weights

    @property
    def distance(self) -> Distance:
        """That of the configuration."""
        return self.config.distance

    def forward(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The mean over images; given triplets are not used."""
        scores = F.normalize(z, dim=1) @ self.prototypes.to(z.dtype).T / self.config.temperature
        return F.cross_entropy(scores, labels)
