"""What losses on tuples of a batch share: mining, means over what is active, and what they refuse."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robustdml.distance import Cosine, Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses.loss import MinedLoss, TripletLoss
from robustdml.mining import Miner
from robustdml.types import Triplets


def mean_of_active(h: Float[Tensor, "t"]) -> Float[Tensor, ""]:
    """The mean of the strictly positive entries of h; 0, with a graph, if there is none."""
    active = h > 0
    return h.clamp_min(0).sum() / active.sum().clamp_min(1)


def mine(
    loss: MinedLoss,
    z: Float[Tensor, "b d"],
    labels: Int[Tensor, "b"],
    *,
    draws: Draws,
    index: Tensor,
    miner: Miner | None = None,
) -> Triplets:
    """The triplets that `miner`, by default that of the loss, finds among the embeddings of a batch.

    Raises:
        ValueError: if a positive is of another class than its anchor: the miner wants batches of pairs and got others.
    """
    miner = miner or loss.miner
    found = miner(z.detach(), labels, loss.distance, draws=draws, index=index)
    if not torch.equal(labels[found.anchor], labels[found.positive]):
        name = type(miner).__name__
        raise ValueError(
            f"{name} found positives of another class than their anchor. Miners of pairs need batches in which rows 2t "
            "and 2t + 1 are of one class (--batches Spc2); for other batches use --loss.miner RandomTriplet."
        )
    return found


def on_mined(
    self: TripletLoss,
    z: Float[Tensor, "b d"],
    labels: Int[Tensor, "b"],
    triplets: Triplets | None = None,
    *,
    draws: Draws,
    index: Int[Tensor, "b"],
) -> Float[Tensor, ""]:
    """`__call__` of a loss on triplets: mines unless `triplets` are given."""
    triplets = triplets or mine(self, z, labels, draws=draws, index=index)
    return self.on_triplets(torch.stack(triplets.of(z), dim=1))


def log_sum_exp(x: Float[Tensor, "t b"], mask: Bool[Tensor, "t b"]) -> Float[Tensor, "t"]:
    """ln sum e^x over the true entries of each row; where there are none a very negative number, with gradient 0."""
    return x.masked_fill(~mask, -1e30).logsumexp(dim=1)


def of_whole_batch(loss: object, triplets: Triplets | None) -> None:
    """Raise if the data fixes triplets, for a loss that compares all rows of a batch."""
    if triplets is not None:
        name = type(loss).__name__
        raise ValueError(
            f"{name} compares all rows of a batch and cannot keep to the triplets that the data fixes. Use Triplet, "
            "Contrastive, Margin or Snr."
        )


def of_directions(loss: object, distance: Distance) -> None:
    """Raise unless `distance` orders as the cosine does, for a loss that trains cosines."""
    if not isinstance(distance, (Cosine, Spherical)):
        raise ValueError(
            f"{type(loss).__name__} trains cosines, which {type(distance).__name__}() does not rank by. Use Cosine() "
            "or Spherical() as the distance."
        )
