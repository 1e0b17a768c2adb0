"""What a loss is, and what those without weights share."""

from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter

from robustdml.distance import Distance
from robustdml.draws import Draws
from robustdml.mining import Miner
from robustdml.types import Triplets

Own = TypeVar("Own")


@runtime_checkable
class Loss(Protocol):
    """A number to minimise for a batch of embeddings."""

    @property
    def distance(self) -> Distance:
        """The distance it trains, and with which the model is ranked and attacked."""
        ...

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"] | Float[Tensor, "b d"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The loss of raw embeddings `z`; labels are class labels or teacher embeddings."""
        ...

    def build(self, num_classes: int, dim: int) -> "Loss":
        """The loss with its weights; itself if it has none."""
        ...

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Weights of the loss (proxies, a learnable boundary) by optimiser group."""
        ...


@runtime_checkable
class MinedLoss(Loss, Protocol):
    """A loss that looks for triplets in its batch."""

    @property
    def miner(self) -> Miner:
        """Finds the triplets unless the data fixes them."""
        ...


@runtime_checkable
class TripletLoss(MinedLoss, Protocol):
    """A loss that tuple-level defenses can work with."""

    def on_triplets(self, z: Float[Tensor, "t 3 d"], margin: float | None = None) -> Float[Tensor, ""]:
        """The loss of given (anchor, positive, negative) embeddings, reduction included."""
        ...

    def active(self, z: Float[Tensor, "t 3 d"]) -> Bool[Tensor, "t"]:
        """Whether the negative of each triplet still contributes to the loss."""
        ...


def itself(self: Own, num_classes: int, dim: int) -> Own:
    """`build` of a loss without weights."""
    return self


def no_weights(self: object) -> dict[str, list[Parameter]]:
    """`parameter_groups` of a loss without weights."""
    return {}
