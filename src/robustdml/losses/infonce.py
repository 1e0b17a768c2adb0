"""The InfoNCE loss between the two halves of pairs."""

import math
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustdml.distance import Cosine, Distance
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import of_directions
from robustdml.mining import need_pairs
from robustdml.types import Triplets, arange_like


@dataclass(frozen=True)
class InfoNce:
    """Cross-entropy of e^logit_scale cos(a_s, p_t) over t and over s, averaged (van den Oord et al., arXiv:1807.03748).

    Anchors are the even rows of a batch of pairs and positives the odd ones; every other pair counts as negative, one
    of the same class too.

    Args:
        distance: of the model, `Cosine` or `Spherical`: both order as the cosine does.
        logit_scale: t of the published loss, minus the logarithm of the temperature; 0 is temperature 1.
    """

    distance: Distance = field(default_factory=Cosine)
    logit_scale: float = 0.0

    build, parameter_groups = itself, no_weights

    def __post_init__(self) -> None:
        of_directions(self, self.distance)

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """Draws nothing. Of given `triplets` the negatives are not used.

        Raises:
            ValueError: if the batch does not hold pairs.
        """
        placed = Cosine().place(z)
        if triplets is None:
            need_pairs(self, labels)
            anchor, positive = placed[::2], placed[1::2]
        else:
            anchor, positive, _ = triplets.of(placed)
        logits = math.exp(self.logit_scale) * anchor @ positive.T
        own = arange_like(logits)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
