"""Several searches after one another, each where those before it failed."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary.adversary import Search, forwards_of
from robustdml.adversary.balls import Ball
from robustdml.adversary.pgd import Pgd
from robustdml.draws import Draws
from robustdml.types import Achieved, PixelEnergy, arange_like


@dataclass(frozen=True)
class InTurn:
    """One search after another; an image keeps the first result that reaches the goal, else the last.

    Every search begins at the clean images with draws of its own. What is easily attacked costs little, so that the
    cheapest search comes first. Where nobody says what the goal is, or images influence each other, all search for all.
    """

    searches: tuple[Search, ...] = field(default_factory=lambda: (Pgd(2, 4 / 255), Pgd(5, 2 / 255)))

    def __post_init__(self) -> None:
        if not self.searches:
            raise ValueError("InTurn needs at least one search.")

    @property
    def gradients(self) -> int:
        """Those of an image that no search can turn."""
        return sum(search.gradients for search in self.searches)

    @property
    def forwards(self) -> int:
        """The same without a gradient."""
        return sum(map(forwards_of, self.searches))

    def __call__(
        self,
        energy: PixelEnergy,
        x: Float[Tensor, "b *k c h w"],
        ball: Ball,
        *,
        achieved: Achieved | None = None,
        coupled: bool = False,
        draws: Draws,
        index: Int[Tensor, "b"],
    ) -> Float[Tensor, "b *k c h w"]:
        """The images, each as the search that was the last for it left it."""
        found, left = x.clone(), arange_like(x)
        for number, search in enumerate(self.searches):

            def of_those_left(pixels: Tensor, unit: Tensor, step: int, left: Tensor = left) -> Tensor:
                return energy(pixels, left[unit], step)

            found[left] = search(
                of_those_left, x[left], ball, coupled=coupled, draws=draws.under(f"search {number}"), index=index[left]
            )
            if achieved is not None and not coupled:
                left = left[~achieved(found[left], left)]
            if not len(left):
                break
        return found
