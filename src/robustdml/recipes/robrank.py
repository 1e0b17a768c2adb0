"""RobRank (arXiv:2106.03614) and its predecessor (ECCV 2020, arXiv:2002.11293).

Figures called a draft are in no paper: they stood in drafts of RobDML (arXiv:2203.01439) and are indicative only.
"""

from dataclasses import replace

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.idx import Fashion, Mnist
from robustdml.defenses import (
    AnchoredMinMax,
    AntiCollapse,
    Defense,
    FreeTraining,
    HardnessManipulation,
    MinMax,
    ShiftTraining,
    StoppedMinMax,
)
from robustdml.distance import Spherical
from robustdml.losses import Triplet
from robustdml.mining import Random
from robustdml.models import C2F2
from robustdml.recipe import Adam, Recipe
from robustdml.recipes.suffixes import FEW_STEPS, FREE_REPEATS, until_saturated

ADVERSARY_28 = Adversary(Linf(77 / 255), Pgd(steps=32, step_size=3 / 255))
"""The published inner problem for 28x28 images."""
ADVERSARY_224 = Adversary(Linf(8 / 255), Pgd(steps=32, step_size=1 / 255))
"""The published inner problem for 224x224 images; taken for any other size too."""
UNMEASURED = "not measured yet"
"""Note of recipes that nobody has run here."""
_SEVEN_STEPS = replace(ADVERSARY_28, search=Pgd(FEW_STEPS, 3 / 255))


def training_adversary(
    shape: tuple[int, int, int] | None,
    eps: float | None = None,
    steps: int | None = None,
    step_size: float | None = None,
) -> Adversary:
    """The published inner problem for images of this shape, with a budget of one's own where it is given.

    Grey images of at most 28x28 get 77/255, others 8/255. A published step larger than the radius is cut to it.
    """
    small = shape is not None and shape[0] == 1 and max(shape[1:]) <= 28
    published = ADVERSARY_28 if small else ADVERSARY_224
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


def amd_fashion_c2f2() -> Recipe:
    """C2F2 + AMD with 7 inner steps on Fashion-MNIST; draft figures R@1 82.0, ERS 32.5."""
    return replace(plain_fashion_c2f2(), name="amd-fashion-c2f2", defense=MinMax(_SEVEN_STEPS), note=UNMEASURED)


def ramd_fashion_c2f2() -> Recipe:
    """C2F2 + RAMD with 7 inner steps on Fashion-MNIST; draft figures R@1 83.4, ERS 32.9."""
    return replace(
        plain_fashion_c2f2(), name="ramd-fashion-c2f2", defense=AnchoredMinMax(_SEVEN_STEPS), note=UNMEASURED
    )


def amdsemi_fashion_c2f2() -> Recipe:
    """C2F2 + AMD-semi on Fashion-MNIST; draft figures R@1 79.5, ERS 70.0."""
    defense = StoppedMinMax(until_saturated(ADVERSARY_28))
    return replace(plain_fashion_c2f2(), name="amdsemi-fashion-c2f2", defense=defense, note=UNMEASURED)


def freeat_fashion_c2f2() -> Recipe:
    """C2F2 + free adversarial training, 4 repeats, on Fashion-MNIST; draft figures R@1 80.3, ERS 40.7."""
    defense = FreeTraining(ADVERSARY_28.ball, step_size=3 / 255, repeats=FREE_REPEATS)
    base = plain_fashion_c2f2()
    epochs = base.epochs // FREE_REPEATS
    return replace(base, name="freeat-fashion-c2f2", defense=defense, epochs=epochs, note=UNMEASURED)


def quick(recipe: Recipe) -> Recipe:
    """The same reach of the adversary in 8 steps instead of 32, with the network in bfloat16."""
    departs = "8 inner steps of 12/255 instead of 32 of 3/255, network in bfloat16"
    return replace(
        recipe,
        name=recipe.name + "-quick",
        defense=in_fewer_steps(recipe.defense, 8),
        precision="bf16",
        note=f"{recipe.note}; {departs}" if recipe.note else departs,
    )


def in_fewer_steps(defense: Defense, steps: int) -> Defense:
    """A defense of which the inner problem takes fewer, larger steps."""
    if not isinstance(defense, (ShiftTraining, AntiCollapse, StoppedMinMax, HardnessManipulation)):
        raise ValueError(f"in_fewer_steps needs EST, ACT, AMD-semi or HM, got {type(defense).__name__}.")
    return replace(defense, adversary=fewer_steps(defense.adversary, steps))


def est_fashion_c2f2_quick() -> Recipe:
    """EST on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(est_fashion_c2f2())


def act_fashion_c2f2_quick() -> Recipe:
    """ACT on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(act_fashion_c2f2())


def amdsemi_fashion_c2f2_quick() -> Recipe:
    """AMD-semi on Fashion-MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(amdsemi_fashion_c2f2())


def est_mnist_c2f2_quick() -> Recipe:
    """EST on MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(est_mnist_c2f2())


def act_mnist_c2f2_quick() -> Recipe:
    """ACT on MNIST with 8 inner steps of 12/255 in bfloat16."""
    return quick(act_mnist_c2f2())
