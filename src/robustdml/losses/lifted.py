"""The lifted structure loss."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance, Euclidean
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import log_sum_exp, of_whole_batch
from robustdml.mining import anchors_of, need_pairs, same_class
from robustdml.types import Triplets, arange_like


@dataclass(frozen=True)
class LiftedStructure:
    """mean_a [ln sum_p e^d(a, p) + ln sum_n e^(margin - d(a, n))]_+ + weight * mean |z|.

    The generalised form of Hermans et al., arXiv:1703.07737. Anchors are the even rows of a batch of pairs, p all other
    rows of their class and n all rows of other classes. The second term is the mean norm of all rows, of unit vectors
    where the distance normalises.

    Note: an anchor without negatives costs nothing; RobRank gives it a random row.

    Args:
        margin: published with 0.2 on the sphere and 1.0 for raw Euclidean embeddings.
        weight: of the norms; published with 0.005.
    """

    distance: Distance = field(default_factory=Euclidean)
    margin: float = 1.0
    weight: float = 5e-3

    build, parameter_groups = itself, no_weights

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """Draws nothing; gradient flows to all rows.

        Raises:
            ValueError: if the batch does not hold pairs, or the data fixes triplets.
        """
        of_whole_batch(self, triplets)
        need_pairs(self, labels)
        same = same_class(labels)
        d = self.distance.matrix(z[::2], z)
        positives = same & (arange_like(labels)[None, :] != anchors_of(labels)[:, None])
        hinges = log_sum_exp(d, positives) + log_sum_exp(self.margin - d, ~same)
        return hinges.clamp_min(0).mean() + self.weight * self.distance.place(z).norm(dim=1).mean()
