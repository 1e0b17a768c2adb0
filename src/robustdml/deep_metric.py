"""A deep metric: an embedder and a distance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.distance import Distance
from robustdml.models.embedder import Embedder, frozen


@dataclass(frozen=True)
class DeepMetric:
    """d(f(x), f(y)) for images x and y with pixels in [0, 1]."""

    embedder: Embedder
    distance: Distance

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embeddings in evaluation mode, without gradient."""
        with frozen(self.embedder), torch.no_grad():
            return self.embedder(images)

    def __call__(self, x: Float[Tensor, "m c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, "m n"]:
        """Distances between all images of `x` and all of `y`."""
        return self.distance.matrix(self.embed(x), self.embed(y))
