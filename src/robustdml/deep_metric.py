"""A deep metric: an embedder and a distance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.distance import Distance
from robustdml.models.embedder import Embedder, frozen, in_float32


@dataclass(frozen=True)
class DeepMetric:
    """d(f(x), f(y)) for images x and y with pixels in [0, 1]."""

    embedder: Embedder
    distance: Distance

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embeddings in evaluation mode, without gradient, in float32 even where the embedder runs in bfloat16.

        What is ranked and scored comes from here; an adversary works on the embedder as it runs. Rounding in bfloat16
        moves every embedding a little, which would pass for the effect of an attack.
        """
        embedder = in_float32(self.embedder)
        with frozen(embedder), torch.no_grad():
            return embedder(images)

    def __call__(self, x: Float[Tensor, "m c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, "m n"]:
        """Distances between all images of `x` and all of `y`."""
        return self.distance.matrix(self.embed(x), self.embed(y))
