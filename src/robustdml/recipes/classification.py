"""Classifiers, plain and adversarially trained; networks and plain settings are those of RobRank (arXiv:2106.03614).

The adversaries are those of Madry et al. (arXiv:1706.06083) where they publish one. Nothing else is published for them:
the recipes are unmeasured until their numbers stand in the documentation.
"""

from dataclasses import replace

from robustdml.adversary import L2, Adversary, Linf, Pgd
from robustdml.data.batches import ClassBatches
from robustdml.data.cifar import Cifar10
from robustdml.data.idx import Mnist
from robustdml.defenses import AdversarialTraining
from robustdml.losses import CrossEntropy
from robustdml.models import Backbone, C2F2Classifier, LeNetClassifier, Perceptron
from robustdml.recipe import Adam, Recipe, Sgd
from robustdml.recipes.robrank import UNMEASURED

PGD_28 = Adversary(Linf(0.3), Pgd(steps=40, step_size=0.01, random_start=True))
"""Of arXiv:1706.06083 for MNIST."""
FGSM_28 = Adversary(Linf(0.3), Pgd(steps=1, step_size=0.3))
L2_28 = Adversary(L2(2.0), Pgd(steps=40, step_size=0.125, random_start=True))
"""Our choice: 2.5 times the radius in 40 steps."""
PGD_32 = Adversary(Linf(8 / 255), Pgd(steps=7, step_size=2 / 255, random_start=True))
"""Of arXiv:1706.06083 for CIFAR-10."""
FGSM_32 = Adversary(Linf(8 / 255), Pgd(steps=1, step_size=8 / 255))
L2_32 = Adversary(L2(0.5), Pgd(steps=7, step_size=0.18, random_start=True))
"""Our choice: 2.5 times the radius in 7 steps."""


def classify_mnist_c2f2() -> Recipe:
    """C2F2 with class scores on MNIST, cross-entropy, no defense (RobRank's cc2f2)."""
    return Recipe(
        name="classify-mnist-c2f2",
        data=Mnist(),
        model=C2F2Classifier(10),
        loss=CrossEntropy(),
        batches=ClassBatches(1000),
        optimiser=Adam(lr=1e-3, weight_decay=1e-7),
        epochs=16,
        paper="robrank",
        note=UNMEASURED,
    )


def classify_mnist_lenet() -> Recipe:
    """Caffe's LeNet with class scores on MNIST, no defense (RobRank's clenet)."""
    return replace(classify_mnist_c2f2(), name="classify-mnist-lenet", model=LeNetClassifier(10), epochs=10)


def classify_mnist_perceptron() -> Recipe:
    """One linear layer on MNIST, no defense (RobRank's cslp)."""
    return replace(classify_mnist_c2f2(), name="classify-mnist-perceptron", model=Perceptron(10), epochs=10)


def _against(recipe: Recipe, prefix: str, adversary: Adversary) -> Recipe:
    name = recipe.name.replace("classify", prefix, 1)
    return replace(recipe, name=name, defense=AdversarialTraining(adversary), paper="madry")


def pgd_mnist_c2f2() -> Recipe:
    """C2F2 with class scores on MNIST, trained on 40 steps of PGD in the ball of 0.3."""
    return _against(classify_mnist_c2f2(), "pgd", PGD_28)


def pgd_mnist_lenet() -> Recipe:
    """LeNet with class scores on MNIST, trained on 40 steps of PGD in the ball of 0.3."""
    return _against(classify_mnist_lenet(), "pgd", PGD_28)


def pgd_mnist_perceptron() -> Recipe:
    """One linear layer on MNIST, trained on 40 steps of PGD in the ball of 0.3."""
    return _against(classify_mnist_perceptron(), "pgd", PGD_28)


def pgd_l2_mnist_c2f2() -> Recipe:
    """C2F2 with class scores on MNIST, trained on 40 steps of PGD in the l2 ball of 2.0 (our choice of radius)."""
    return _against(classify_mnist_c2f2(), "pgd-l2", L2_28)


def fgsm_mnist_c2f2() -> Recipe:
    """C2F2 with class scores on MNIST, trained on a single step of the whole radius 0.3."""
    return _against(classify_mnist_c2f2(), "fgsm", FGSM_28)


def classify_cifar10_resnet18() -> Recipe:
    """ResNet-18 with its ImageNet stem on CIFAR-10 (cres18), no defense; published accuracy 86.3."""
    return replace(
        classify_mnist_c2f2(),
        name="classify-cifar10-resnet18",
        data=Cifar10(),
        model=Backbone("resnet18", 10),
        batches=ClassBatches(256),
        optimiser=Sgd(lr=0.1, momentum=0.9, weight_decay=2e-4),
        epochs=200,
        milestones=(100, 150),
    )


def pgd_cifar10_resnet18() -> Recipe:
    """The same trained on 7 steps of PGD in the ball of 8/255."""
    return _against(classify_cifar10_resnet18(), "pgd", PGD_32)


def pgd_l2_cifar10_resnet18() -> Recipe:
    """The same trained on 7 steps of PGD in the l2 ball of 0.5 (our choice of radius)."""
    return _against(classify_cifar10_resnet18(), "pgd-l2", L2_32)


def fgsm_cifar10_resnet18() -> Recipe:
    """The same trained on a single step of the whole radius 8/255."""
    return _against(classify_cifar10_resnet18(), "fgsm", FGSM_32)
