"""Penalties added to the loss of any defense."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.defenses.defense import Defense, Mean, first_memory, need_finite
from robustdml.draws import Draws
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@runtime_checkable
class Penalty(Protocol):
    """A number to keep small besides the loss, made of the embeddings that the loss saw."""

    @property
    def weight(self) -> float:
        """With which it is added to the loss."""
        ...

    @property
    def name(self) -> str:
        """Under which it is logged, before it is weighted."""
        ...

    def __call__(self, z: Float[Tensor, "b *k d"], labels: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """The penalty of raw embeddings: rows of an SPC-2 batch [b d], or triplets [t 3 d] with anchor labels."""
        ...


@dataclass(frozen=True)
class ClasswiseBarlow:
    """Barlow twins within every class, between anchors and positives on the unit sphere (arXiv:2103.03230).

    sum over classes of sum_k (C_kk - 1)^2 + off_diagonal * sum_{k != l} C_kl^2, with C the correlation over the class's
    pairs of column-standardised embeddings (unbiased deviation, divided by the number of pairs). Classes with fewer
    than `smallest` pairs, or with a column that does not vary, are left out.

    Of an SPC-2 batch the pairs are rows 2t and 2t + 1; of triplets, anchor and positive as the defense moved them.
    """

    weight: float = 1e-5
    off_diagonal: float = 0.005
    smallest: int = 3
    name: ClassVar[str] = "barlow"

    def __post_init__(self) -> None:
        need_finite(self)

    def __call__(self, z: Float[Tensor, "b *k d"], labels: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """Gradient flows to both members of a pair."""
        if z.ndim == 3:
            anchor, positive, of = z[:, 0], z[:, 1], labels
        else:
            if len(labels) % 2 or not torch.equal(labels[0::2], labels[1::2]):
                raise ValueError("ClasswiseBarlow needs pairs of one class, rows 2t and 2t + 1: use Spc2 batches.")
            anchor, positive, of = z[0::2], z[1::2], labels[0::2]
        return self.of_pairs(F.normalize(anchor, dim=1), F.normalize(positive, dim=1), of)

    def of_pairs(self, a: Float[Tensor, "t d"], b: Float[Tensor, "t d"], labels: Int[Tensor, "t"]) -> Float[Tensor, ""]:
        """The same of aligned rows as they are, neither normalised nor moved."""
        _, group, count = torch.unique(labels, return_inverse=True, return_counts=True)
        (a, a_varies), (b, b_varies) = (_standardised(x, group, count) for x in (a, b))
        counted = (count >= self.smallest) & a_varies & b_varies
        rows = counted[group]
        a, b = (x * rows[:, None] for x in (a, b))
        diagonal = a.new_zeros(len(count), a.shape[1]).index_add(0, group, a * b) / count[:, None]
        # sum_kl C_kl^2 = <A A^T, B B^T> / N^2: products of pairs instead of a d x d matrix for every class
        same = group[:, None] == group[None, :]
        everything = ((a @ a.T) * (b @ b.T) * same / (count[group].square())[:, None]).sum()
        on = ((diagonal - 1).square() * counted[:, None]).sum()
        return on + self.off_diagonal * (everything - diagonal.square().sum())


def _standardised(
    x: Float[Tensor, "t d"], group: Int[Tensor, "t"], count: Int[Tensor, "c"]
) -> tuple[Float[Tensor, "t d"], Tensor]:
    """Columns with mean 0 and unbiased deviation 1 within each group, and which groups vary in every column."""
    zeros = x.new_zeros(len(count), x.shape[1])
    centred = x - (zeros.index_add(0, group, x) / count[:, None])[group]
    variance = zeros.index_add(0, group, centred.square()) / (count - 1).clamp_min(1)[:, None]
    varies = (variance > 0).all(dim=1)
    deviation = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
    return centred / deviation[group], varies


Constraint = Literal[
    "largest", "leading-gap", "decay", "smallest", "condition", "log-largest", "log-smallest", "log-condition"
]
_CONSTRAINTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "largest": lambda s: (s[0] - 1000).clamp_min(0),
    "leading-gap": lambda s: (s[:1] / s[1:2] - 8).clamp_min(0).sum(),
    "decay": lambda s: (1.2 - s[1:-1][:4] / s[2:6]).clamp_min(0).sum() / max(1, len(s[2:6])),
    "smallest": lambda s: (1e-3 / s[-1] - 1).clamp_min(0),
    "condition": lambda s: (s[0] / (8192 * s[-1]) - 1).exp(),
    "log-largest": lambda s: (s[0] / 200).log().clamp_min(0),
    "log-smallest": lambda s: (1e-5 / s[-1]).log().clamp_min(0),
    "log-condition": lambda s: (s[0] / (1e5 * s[-1])).log().clamp_min(0),
}
"""Of descending singular values; in the order of the published list, which numbers them from 1."""


@dataclass(frozen=True)
class SingularValues:
    """Keeps the singular values of the raw embeddings of a batch inside a range (RobRank's option `svd`).

    The sum of the chosen constraints of S_1 >= S_2 >= …, S_min the last:

    - largest: [S_1 - 1000]_+
    - leading-gap: [S_1 / S_2 - 8]_+
    - decay: mean over k = 2 … 5 of [1.2 - S_k / S_(k+1)]_+
    - smallest: [1e-3 / S_min - 1]_+
    - condition: exp(S_1 / (8192 S_min) - 1), never zero
    - log-largest: [ln(S_1 / 200)]_+
    - log-smallest: [ln(1e-5 / S_min)]_+
    - log-condition: [ln(S_1 / (1e5 S_min))]_+

    Values below the smallest normal number count as that: a collapsed batch costs much, not infinitely much, and gets
    no gradient from S_min. Triplets [t 3 d] count as 3 t rows. Where there are fewer than six values, ratios of those
    that are there count.

    Raises:
        ValueError: for an unknown constraint or none.
    """

    constraints: tuple[str, ...] = ("log-largest", "log-smallest")
    weight: float = 1.0
    name: ClassVar[str] = "singular values"

    def __post_init__(self) -> None:
        need_finite(self)
        known = get_args(Constraint)
        if not self.constraints or not set(self.constraints) <= set(known):
            raise ValueError(
                f"SingularValues needs at least one constraint of {', '.join(known)}; got {list(self.constraints)}."
            )

    def __call__(self, z: Float[Tensor, "b *k d"], labels: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        """Gradient flows through the singular values."""
        rows = z.flatten(0, -2)
        s = torch.linalg.svdvals(rows).clamp_min(torch.finfo(rows.dtype).tiny)
        return torch.stack([_CONSTRAINTS[c](s) for c in self.constraints]).sum()


@dataclass(frozen=True)
class Penalised:
    """Another defense with a penalty on the embeddings it trains on; nest it for several penalties."""

    inner: Defense
    penalty: Penalty = field(default_factory=SingularValues)

    def __call__(
        self,
        embedder: Embedder,
        loss: Loss,
        batch: Batch,
        *,
        memory: dict[str, Tensor],
        progress: float,
        draws: Draws,
        mean: Mean,
    ) -> Step:
        """The step of the other defense; loss + weight * penalty."""
        step = self.inner(embedder, loss, batch, memory=memory, progress=progress, draws=draws, mean=mean)
        if step.z is None or step.labels is None:
            raise ValueError(
                f"{type(self.inner).__name__} does not say which embeddings its loss saw, so "
                f"{type(self.penalty).__name__} cannot be added: let its Step carry z and labels."
            )
        value = self.penalty(step.z, step.labels)
        logs = step.logs | {self.penalty.name: float(value.detach())}
        return replace(step, loss=step.loss + self.penalty.weight * value, logs=logs)

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What the other defense remembers."""
        return first_memory(self.inner, embedder)

    def check(self, loss: Loss) -> None:
        """The other defense must be able to train it."""
        self.inner.check(loss)


PENALTIES: dict[str, type[Penalty]] = {"ClasswiseBarlow": ClasswiseBarlow, "SingularValues": SingularValues}
