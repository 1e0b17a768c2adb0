"""An adversary that grows with the training."""

from dataclasses import dataclass, replace

from torch import Tensor

from robustdml.adversary import Adversary, Nes, Pgd
from robustdml.defenses.defense import Defense, Mean, adversary_of, first_memory, made_of, with_adversary
from robustdml.draws import Draws
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder
from robustdml.types import Batch, Step


@dataclass(frozen=True)
class Growing:
    """Any defense whose radius and inner step size grow linearly from 0 over the first part of the training.

    Large radii from the first step on can keep a network from learning anything at all.

    Args:
        inner: a defense with an adversary.
        share: of the training after which the adversary has its full size.
    """

    inner: Defense
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"Growing needs a share in (0, 1], got {self.share}.")
        in_smaller_steps(self._adversary, 1.0)
        for inside in made_of(self.inner):
            if isinstance(inside, Growing) or getattr(inside, "ramps", False):
                raise ValueError(f"{type(inside).__name__} lets its inner steps grow by itself. Use one or the other.")

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
        """The step of the inner defense with the adversary of this moment."""
        size = min(1.0, progress / self.share)
        adversary = self._adversary
        ball = replace(adversary.ball, eps=size * adversary.ball.eps)  # type: ignore[type-var]
        small = replace(in_smaller_steps(adversary, size) if size else adversary, ball=ball)
        step = with_adversary(self.inner, small)(
            embedder, loss, batch, memory=memory, progress=progress, draws=draws, mean=mean
        )
        return replace(step, logs=step.logs | {"eps": ball.eps})

    @property
    def _adversary(self) -> Adversary:
        found = adversary_of(self.inner)
        if found is None:
            raise ValueError(
                f"Growing lets an adversary grow, and {type(self.inner).__name__} has none. Use ShiftTraining, "
                "AntiCollapse, HardnessManipulation or another defense that has one."
            )
        return found

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """What the inner defense remembers."""
        return first_memory(self.inner, embedder)

    def check(self, loss: Loss) -> None:
        """What the inner defense can train."""
        self.inner.check(loss)


def in_smaller_steps(adversary: Adversary, share: float) -> Adversary:
    """The same adversary with its step size multiplied.

    Raises:
        ValueError: if its search has no step size.
    """
    search = adversary.search
    if not isinstance(search, (Pgd, Nes)):
        raise ValueError(f"the size of inner steps grows, and {type(search).__name__} has none. Use Pgd.")
    return replace(adversary, search=replace(search, step_size=search.step_size * share))
