"""A deep metric: an embedder and a distance."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.distance import Distance, Dot
from robustdml.losses import ClassLoss, Loss, prototypes
from robustdml.models.embedder import Embedder, frozen, in_float32


@dataclass(frozen=True, eq=False)
class DeepMetric:
    """d(f(x), f(y)) for images x and y with pixels in [0, 1].

    Args:
        prototypes: one embedding per class, whose inner products with f(x) are class scores; `None` without classes.
        ranks: what a query ranks: the gallery of a data set, or the classes, which makes recall@1 accuracy.
    """

    embedder: Embedder
    distance: Distance
    prototypes: Float[Tensor, "k d"] | None = None
    ranks: Literal["gallery", "classes"] = "gallery"

    def __post_init__(self) -> None:
        if self.ranks == "classes" and self.prototypes is None:
            raise ValueError("DeepMetric ranks classes by prototypes, got none. Give one embedding per class.")

    def classifier(self) -> "DeepMetric":
        """The same network ranking its classes, by their scores.

        Raises:
            ValueError: if it has no classes.
        """
        return replace(self, distance=Dot(), ranks="classes")

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


def trained_metric(embedder: Embedder, loss: Loss) -> DeepMetric:
    """The metric that a loss trains: a classifier ranks classes, a hybrid the gallery beside its class scores."""
    if not isinstance(loss, ClassLoss):
        return DeepMetric(embedder, loss.distance)
    like = next(embedder.parameters(), torch.empty(0)).new_empty(0, embedder.dim)
    return DeepMetric(embedder, loss.distance, prototypes(loss, like), loss.ranks)
