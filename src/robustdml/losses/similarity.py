"""The multi-similarity loss."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from robustdml.distance import Cosine, Distance
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import log_sum_exp, of_directions, of_whole_batch
from robustdml.mining import need_pairs, same_class
from robustdml.types import Triplets


@dataclass(frozen=True)
class MultiSimilarity:
    """mean_i ln(1 + sum_p e^(-alpha (s - base))) / alpha + ln(1 + sum_n e^(beta (s - base))) / beta.

    Wang et al., CVPR 2019. s are the cosines of row i with all others. A positive counts if it is less similar than the
    most similar negative plus `epsilon`, a negative if it is more similar than the least similar positive minus it.

    Note: RobRank takes the even rows of pairs for i, counts i among its own positives and leaves no pair out.
    `pairs="as-published"` keeps that; its table needs it.

    Args:
        distance: of the model, `Cosine` or `Spherical`: both order as s does.
    """

    distance: Distance = field(default_factory=Cosine)
    alpha: float = 2.0
    beta: float = 40.0
    base: float = 0.5
    epsilon: float = 0.1
    pairs: Literal["informative", "as-published"] = "informative"

    build, parameter_groups = itself, no_weights

    def __post_init__(self) -> None:
        of_directions(self, self.distance)

    def informative(
        self, similarity: Float[Tensor, "b b"], labels: Int[Tensor, "b"]
    ) -> tuple[Bool[Tensor, "b b"], Bool[Tensor, "b b"]]:
        """The positives and negatives of every row that the paper keeps; rows without either keep none of the other."""
        same = labels[:, None] == labels[None, :]
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        most_similar = similarity.masked_fill(same, -torch.inf).amax(dim=1, keepdim=True)
        least_similar = similarity.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
        kept = positive & (similarity - self.epsilon < most_similar)
        return kept, ~same & (similarity + self.epsilon > least_similar)

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The mean over all rows, 0 for those without a pair; draws nothing.

        Raises:
            ValueError: if the data fixes triplets, or the published form gets a batch that does not hold pairs.
        """
        of_whole_batch(self, triplets)
        placed = Cosine().place(z)
        if self.pairs == "as-published":
            need_pairs(self, labels)
            similarity, positive = placed[::2] @ placed.T, same_class(labels)
            negative = ~positive
        else:
            similarity = placed @ placed.T
            positive, negative = self.informative(similarity.detach(), labels)
        attraction = softplus(log_sum_exp(-self.alpha * (similarity - self.base), positive)) / self.alpha
        repulsion = softplus(log_sum_exp(self.beta * (similarity - self.base), negative)) / self.beta
        return (attraction + repulsion).mean()
