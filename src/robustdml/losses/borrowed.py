"""Losses of pytorch-metric-learning."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import Parameter

from robustdml import pml
from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws, own_generators
from robustdml.losses.loss import itself, no_weights
from robustdml.mining import Miner, PmlMiner
from robustdml.types import Triplets


@dataclass(frozen=True)
class Pml:
    """A loss of pytorch-metric-learning by its name, its weights trained and saved; on the command line pml:NAME.

    Needs the extra `pml`. Weights (proxies, boundaries) are the parameter group "pml". A batch in which nothing is
    found costs 0, with a graph.

    Args:
        name: of the class, e.g. "CircleLoss".
        arguments: keywords of its constructor; `num_classes` and `embedding_size` are filled in. `reducer` and the
            regularisers take the name of a class, or {"name": …} with its arguments.
        distance: what the loss compares embeddings with, and what the model is ranked and attacked with. A loss that
            knows one distance alone says which; pml:NAME on the command line chooses the loss's own.
        miner: chooses pairs or triplets; with `None` the loss takes all it can make of a batch.
    """

    name: str = "TripletMarginLoss"
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    distance: Distance = field(default_factory=Spherical)
    miner: Miner | None = None

    parameter_groups = no_weights

    def build(self, num_classes: int, dim: int) -> "BuiltPml":
        """The loss with its weights.

        Raises:
            ImportError: if pytorch-metric-learning is not installed.
            ValueError: for what is unknown, missing or cannot be used, with what can.
        """
        return BuiltPml(self, pml.made("losses", self.name, self.arguments, self.distance, (num_classes, dim)))

    def __call__(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The loss as it is built; one with weights must be built first."""
        built = self.build(0, z.shape[1])
        if any(True for _ in built.parameters()):
            raise ValueError(
                f"pml:{self.name} has weights: call build(num_classes, dim) once, and train what it returns."
            )
        return built(z, labels, triplets, draws=draws, index=index)


class BuiltPml(nn.Module):
    """A loss of pytorch-metric-learning with its weights."""

    def __init__(self, config: Pml, inner: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.inner = inner

    @property
    def distance(self) -> Distance:
        """That of the configuration."""
        return self.config.distance

    build = itself

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """All weights in one group."""
        weights = list(self.inner.parameters())
        return {"pml": weights} if weights else {}

    def _tuples(self, z: Tensor, labels: Tensor, draws: Draws, index: Tensor) -> tuple[Tensor, ...] | None:
        miner = self.config.miner
        if miner is None:
            return None
        if isinstance(miner, PmlMiner):
            return miner.tuples(z, labels, self.distance, draws=draws, index=index)
        found = miner(z.detach(), labels, self.distance, draws=draws, index=index)
        return found.anchor, found.positive, found.negative

    def forward(
        self,
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, "b"],
        triplets: Triplets | None = None,
        *,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, ""]:
        """The reduced loss, of normalised embeddings where the distance normalises: some of theirs leave that out.

        Given `triplets` are used instead of mining.
        """
        given = (triplets.anchor, triplets.positive, triplets.negative) if triplets else None
        tuples = given or self._tuples(z, labels, draws, index)
        nothing = 0 * z.sum()
        if tuples is not None and pml.empty(tuples):
            return nothing
        with own_generators(draws.number("loss")):
            value = self.inner(self.distance.place(z), labels, tuples)
        pml.cut_history(self.inner)
        if not isinstance(value, Tensor) or value.dim() > 0:
            raise ValueError(
                f"pml:{self.config.name} returned {type(value).__name__}, not one number. Leave out its reducer, or "
                "use MeanReducer."
            )
        if bool(value.isnan()) and len(labels.unique()) == len(labels):  # the mean of no positives
            return nothing
        return value + nothing  # a constant has no graph


def pml_loss(name: str) -> Pml:
    """The loss called pml:NAME, with the distance it was made for.

    Raises:
        ImportError: if pytorch-metric-learning is not installed.
        ValueError: for an unknown name, with near ones, or a loss that cannot be used.
    """
    pml.class_of("losses", name)
    try:
        own = pml.distance_of(pml.made("losses", name, {}))
    except ValueError:  # it has arguments without defaults, which are set next
        own = None
    return Pml(name, distance=own or Spherical())
