"""Two defenses taking turns."""

from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from robustdml.defenses.defense import Defense, Mean, first_memory
from robustdml.draws import Draws
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class Mixture:
    """At every batch a coin decides which of two defenses makes the step (RobRank's suffixes `px` and `amdsemiact`).

    The coin depends on seed and step alone: it is the same on all processes and for all parts of a batch. Each defense
    remembers only its own steps.

    Args:
        share: probability of the first.
    """

    first: Defense
    second: Defense
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Mixture needs a share in [0, 1], got {self.share}.")

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
        """The step of the defense whose turn it is; it keeps the turn while it asks for the batch again."""
        zero = torch.zeros(1, dtype=torch.long, device=batch.images.device)
        first = bool(draws.uniform("mixture", zero, (), torch.float64) < self.share)
        if "turn" in memory:
            first = bool(memory["turn"])
        chosen, name = (self.first, "first.") if first else (self.second, "second.")
        own = {k.removeprefix(name): v for k, v in memory.items() if k.startswith(name)}
        step = chosen(embedder, loss, batch, memory=own, progress=progress, draws=draws, mean=mean)

        def kept(new: dict[str, Tensor]) -> dict[str, Tensor]:
            others = {k: v for k, v in memory.items() if k != "turn" and not k.startswith(name)}
            turn = {"turn": zero[0] + first} if step.again else {}
            return others | {name + k: v for k, v in new.items()} | turn

        after = step.after_backward
        return replace(
            step,
            logs=step.logs | {"first": float(first)},
            memory=kept(step.memory),
            after_backward=None if after is None else lambda: kept(after()),
        )

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What both remember, each under its name."""
        both = {"first.": first_memory(self.first, embedder), "second.": first_memory(self.second, embedder)}
        return {name + key: value for name, memory in both.items() for key, value in memory.items()}

    def check(self, loss: Loss) -> None:
        """Both must be able to train it."""
        self.first.check(loss)
        self.second.check(loss)


def branches(defense: Defense) -> list[tuple[float, Defense]]:
    """What makes the step, with the probability of each: the defense itself where nothing inside it takes turns."""
    if isinstance(defense, Mixture):
        either = ((defense.share, defense.first), (1 - defense.share, defense.second))
        return [(share * inner, d) for share, one in either if share for inner, d in branches(one)]
    names: list[str] = [field.name for field in fields(defense)] if is_dataclass(defense) else []
    found = [(1.0, defense)]
    for name in names:
        inner = getattr(defense, name)
        if isinstance(inner, Defense):
            found = [
                (share * p, replace(one, **{name: d}))  # type: ignore[type-var]  # a dataclass, as above
                for share, one in found
                for p, d in branches(inner)
            ]
    return found
