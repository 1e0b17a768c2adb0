"""The N-pair loss."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, softplus

from robustdml.distance import Distance, Euclidean
from robustdml.draws import Draws
from robustdml.losses.loss import itself, no_weights
from robustdml.losses.tuples import log_sum_exp, of_whole_batch
from robustdml.mining import need_pairs, same_class
from robustdml.types import Triplets


@dataclass(frozen=True)
class NPair:
    """mean_a ln(1 + sum_n exp <a/|a|, n - p>) + weight * mean |z| (after Sohn, NeurIPS 2016).

    Anchors are the even rows of a batch of pairs, p their partners and n all rows of other classes. Positives and
    negatives are normalised where the distance normalises.

    Note: as in RobRank the anchor is always normalised and all rows of another class are negatives; the original has
    one of each class. An anchor without negatives costs nothing.

    Args:
        weight: of the norms of all rows; published with 0.005.
    """

    distance: Distance = field(default_factory=Euclidean)
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
        placed = self.distance.place(z)
        anchor = normalize(placed[::2], dim=1)
        similarity = anchor @ placed.T
        partner = (anchor * placed[1::2]).sum(dim=1, keepdim=True)
        cost = softplus(log_sum_exp(similarity - partner, ~same_class(labels)))
        return cost.mean() + self.weight * placed.norm(dim=1).mean()
