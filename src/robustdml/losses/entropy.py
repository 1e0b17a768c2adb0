"""Losses on class scores: classification, and classification beside a metric."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import Parameter

from robustdml.distance import Distance, Dot, Leading
from robustdml.draws import Draws
from robustdml.losses.loss import Loss, no_weights
from robustdml.losses.triplet import Triplet
from robustdml.types import Triplets

Ranks = Literal["gallery", "classes"]


@runtime_checkable
class ClassLoss(Loss, Protocol):
    """A loss whose embeddings hold one score per class."""

    @property
    def ranks(self) -> Ranks:
        """What its models rank: the gallery of a data set, or the classes."""
        ...

    def class_scores(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Some coordinates of an embedding: linear, so that they are inner products with prototypes."""
        ...


def prototypes(loss: ClassLoss, like: Float[Tensor, "b d"]) -> Float[Tensor, "k d"]:
    """One embedding per class whose inner product with z is the score of the class; dtype and device of `like`."""
    width = like.shape[1]
    return loss.class_scores(torch.eye(width, device=like.device, dtype=like.dtype)).T.contiguous()


def _checked(scores: Float[Tensor, "b k"], labels: Int[Tensor, "b"]) -> Float[Tensor, "b k"]:
    if len(labels) and int(labels.max()) >= scores.shape[1]:
        raise ValueError(
            f"label {int(labels.max())} has no score: the model gives {scores.shape[1]}. Set the model's number of "
            "classes to that of the data set (--model.num_classes, or --model.dim of a backbone)."
        )
    return scores


@dataclass(frozen=True)
class CrossEntropy:
    """mean_i [ln sum_k e^{z_ik} - z_iy]: the embedding of an image is its class scores, ranked on prototypes.

    Class k is the unit vector e_k, and `Dot` ranks it by the score, so that recall@1 is accuracy.
    """

    ranks: ClassVar[Ranks] = "classes"
    distance: Distance = field(default_factory=Dot)

    parameter_groups = no_weights

    def class_scores(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The embedding itself."""
        return z

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The mean over images.

        Raises:
            ValueError: for a label without a score.
        """
        return F.cross_entropy(_checked(z, labels), labels)

    def build(self, num_classes: int, dim: int) -> "CrossEntropy":
        """Itself: it has no weights.

        Raises:
            ValueError: if there are fewer scores than classes.
        """
        _enough(num_classes, dim)
        return self


def _enough(num_classes: int, scores: int) -> None:
    if scores < num_classes:
        raise ValueError(
            f"the model gives {scores} class scores for {num_classes} classes. Set its number of classes to that of "
            "the data set (--model.num_classes, or --model.dim of a backbone)."
        )


@dataclass(frozen=True)
class Hybrid:
    """A loss on the embedding plus the cross-entropy of the class scores packed behind it, weighted alike.

    Args:
        width: of the embedding; the coordinates after it are class scores.
        metric: trains the embedding, which alone is ranked.
    """

    ranks: ClassVar[Ranks] = "gallery"
    width: int
    metric: Loss = field(default_factory=Triplet)

    @property
    def distance(self) -> Distance:
        """That of the metric, on the embedding alone."""
        return Leading(self.width, self.metric.distance)

    def class_scores(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """What is packed behind the embedding."""
        return z[:, self.width :]

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The sum of both.

        Raises:
            ValueError: for a label without a score.
        """
        entropy = F.cross_entropy(_checked(self.class_scores(z), labels), labels)
        return self.metric(z[:, : self.width], labels, triplets, draws=draws, index=index) + entropy

    def build(self, num_classes: int, dim: int) -> Loss:
        """With the weights of the metric, if it has any.

        Raises:
            ValueError: if there are fewer scores than classes.
        """
        _enough(num_classes, dim - self.width)
        built = self.metric.build(num_classes, self.width)
        return _HybridWithWeights(self, built) if isinstance(built, nn.Module) else replace(self, metric=built)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Those of the metric."""
        return self.metric.parameter_groups()


class _HybridWithWeights(nn.Module):
    """A `Hybrid` whose metric has weights: a module, so that they are moved and saved with it."""

    def __init__(self, hybrid: Hybrid, metric: nn.Module) -> None:
        super().__init__()
        self.metric = metric
        self.hybrid = replace(hybrid, metric=metric)  # type: ignore[arg-type]  # built losses are losses
        self.ranks = self.hybrid.ranks
        self.distance = self.hybrid.distance
        self.class_scores = self.hybrid.class_scores
        self.build = self.hybrid.build
        self.parameter_groups = self.hybrid.parameter_groups

    def forward(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        return self.hybrid(z, labels, triplets, draws=draws, index=index)
