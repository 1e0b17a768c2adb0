"""RobRank (arXiv:2106.03614) and its predecessor (ECCV 2020, arXiv:2002.11293): plain, EST and ACT."""

from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.idx import Fashion, Mnist
from robustdml.defenses import AntiCollapse, ShiftTraining
from robustdml.distance import Spherical
from robustdml.losses import Triplet
from robustdml.mining import Random
from robustdml.models import C2F2
from robustdml.recipe import Adam, Recipe

ADVERSARY_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
"""The published inner problem for 28x28 images."""
ADVERSARY_224 = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=1 / 255))
"""The published inner problem for 224x224 images; taken for any other size too."""


def training_adversary(
    shape: tuple[int, int, int], eps: float | None = None, steps: int | None = None, step_size: float | None = None
) -> Adversary:
    """The published inner problem for images of this shape, with a budget of one's own where it is given.

    Grey images of at most 28x28 get 77/255, others 8/255. A published step larger than the radius is cut to it.
    """
    channels, height, width = shape
    published = ADVERSARY_28 if channels == 1 and max(height, width) <= 28 else ADVERSARY_224
    ball = published.ball if eps is None else Linf(eps)
    search = published.search
    assert isinstance(search, Pgd)
    size = min(search.step_size, ball.eps) if step_size is None else step_size
    return Adversary(ball, Pgd(search.steps if steps is None else steps, size))


def fewer_steps(adversary: Adversary, steps: int) -> Adversary:
    """The same reach with fewer, larger steps: steps x step size is kept."""
    search = adversary.search
    if not isinstance(search, Pgd):
        raise ValueError(f"fewer_steps needs a Pgd search, got {type(search).__name__}.")
    return replace(adversary, search=replace(search, steps=steps, step_size=search.step_size * search.steps / steps))


def plain_fashion_c2f2() -> Recipe:
    """C2F2, triplet loss, no defense, on Fashion-MNIST; published R@1 87.6, ERS 4.5."""
    return Recipe(
        name="plain-fashion-c2f2",
        data=Fashion(),
        model=C2F2(512),
        loss=Triplet(Spherical(), Random(), margin=0.2),
        optimiser=Adam(lr=1e-3, weight_decay=1e-7),
        epochs=8,
        paper="robrank",
    )


def est_fashion_c2f2() -> Recipe:
    """C2F2 + EST on Fashion-MNIST; published R@1 78.6, ERS 36.4."""
    return replace(plain_fashion_c2f2(), name="est-fashion-c2f2", defense=ShiftTraining(ADVERSARY_28), paper="est")


def act_fashion_c2f2() -> Recipe:
    """C2F2 + ACT on Fashion-MNIST; published R@1 79.4, ERS 67.7 (63.3 from the repository's own table)."""
    return replace(plain_fashion_c2f2(), name="act-fashion-c2f2", defense=AntiCollapse(ADVERSARY_28))


def plain_mnist_c2f2() -> Recipe:
    """C2F2, triplet loss, no defense, on MNIST; published R@1 99.0, ERS 13.3."""
    return replace(plain_fashion_c2f2(), name="plain-mnist-c2f2", data=Mnist())


def est_mnist_c2f2() -> Recipe:
    """C2F2 + EST on MNIST; published R@1 98.3, ERS 40.5."""
    return replace(est_fashion_c2f2(), name="est-mnist-c2f2", data=Mnist())


def act_mnist_c2f2() -> Recipe:
    """C2F2 + ACT on MNIST; published R@1 98.6, ERS 78.6."""
    return replace(act_fashion_c2f2(), name="act-mnist-c2f2", data=Mnist())


def _quick(recipe: Recipe, defense: type[ShiftTraining] | type[AntiCollapse]) -> Recipe:
    return replace(
        recipe,
        name=recipe.name + "-quick",
        defense=defense(fewer_steps(ADVERSARY_28, 8)),
        precision="bf16",
        note="8 inner steps of 12/255 instead of 32 of 3/255, network in bfloat16",
    )


def est_fashion_c2f2_quick() -> Recipe:
    """EST on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return _quick(est_fashion_c2f2(), ShiftTraining)


def act_fashion_c2f2_quick() -> Recipe:
    """ACT on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return _quick(act_fashion_c2f2(), AntiCollapse)


def est_mnist_c2f2_quick() -> Recipe:
    """EST on MNIST with 8 inner steps of 12/255 in bfloat16."""
    return _quick(est_mnist_c2f2(), ShiftTraining)


def act_mnist_c2f2_quick() -> Recipe:
    """ACT on MNIST with 8 inner steps of 12/255 in bfloat16."""
    return _quick(act_mnist_c2f2(), AntiCollapse)
