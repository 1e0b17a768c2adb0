"""Robust fine-tuning towards the network that the training began with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from robustdml.adversary import Adversary
from robustdml.defenses.defense import Mean
from robustdml.defenses.shift import first_nudge
from robustdml.draws import Draws
from robustdml.energies import squared_shift
from robustdml.losses import Loss
from robustdml.models.embedder import Embedder, frozen
from robustdml.types import Batch, Step

_TEACHER = "teacher."


@dataclass(frozen=True)
class TeacherMatching:
    """min max_r ||f(x + r) - f_0(x)||_2^2, f_0 the network with its first weights (FARE, arXiv:2402.12336).

    Raw embeddings are compared and labels are not used, so the loss of the recipe is not trained; it says which
    distance ranks. Begin with weights worth keeping: `--start RUN`.
    """

    adversary: Adversary

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
        """`memory` holds the first weights under names that begin with "teacher."."""
        if not any(name.startswith(_TEACHER) for name in memory):
            raise ValueError(
                "TeacherMatching remembers no teacher: begin with the memory of `begin(embedder)`, and resume from a "
                "checkpoint that holds it."
            )
        target = self._target(embedder, memory, batch.images)
        energy = squared_shift(target, first_nudge(draws, batch.index, target))
        found = self.adversary(embedder, batch.images, energy, draws=draws, index=batch.index)
        z = embedder(found)
        value = (z - target).square().sum(dim=1).mean()
        return Step(value, memory=memory, z=z, labels=batch.labels)

    def _target(self, embedder: Embedder, memory: dict[str, Tensor], images: Tensor) -> Float[Tensor, "b d"]:
        first = {n.removeprefix(_TEACHER): t.to(images.device) for n, t in memory.items() if n.startswith(_TEACHER)}
        with frozen(embedder), torch.no_grad():
            return functional_call(embedder, first, (images,))

    def begin(self, embedder: Embedder) -> dict[str, Tensor]:
        """The weights of now are the teacher's."""
        return {_TEACHER + name: t.detach().clone() for name, t in embedder.state_dict().items()}

    def check(self, loss: Loss) -> None:
        """Any loss will do: it is not trained."""
