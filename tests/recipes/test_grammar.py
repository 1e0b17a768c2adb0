"""RobRank's experiment strings."""

import pytest

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data import Fashion, Mnist
from robustdml.defenses import AntiCollapse, Plain, ShiftTraining
from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.losses import Contrastive, Triplet
from robustdml.mining import DistanceWeighted, Hardest, Random, SemiHard, SoftHard
from robustdml.models import C2F2, LeNet
from robustdml.recipe import recipe_from_json, recipe_to_json
from robustdml.recipes.grammar import METRICS, MINERS, from_string
from robustdml.recipes.robrank import ADVERSARY_28, act_fashion_c2f2, est_mnist_c2f2

FGSM = Adversary(Linf(77 / 255), Pgd(1, 77 / 255))


@pytest.mark.parametrize(
    ("suffix", "defense"),
    [
        ("", Plain()),
        ("d", ShiftTraining(ADVERSARY_28)),
        ("df", ShiftTraining(FGSM)),
        ("p", AntiCollapse(ADVERSARY_28)),
        ("pf", AntiCollapse(FGSM)),
    ],
)
def test_the_suffix_of_the_model_is_the_defense(suffix, defense):
    assert from_string(f"fashion:rc2f2{suffix}:ptripletN").defense == defense


def test_data_set_and_network():
    recipe = from_string("mnist:rlenet:ptripletN")
    assert (recipe.data, recipe.model, recipe.epochs) == (Mnist(), LeNet(128), 16)
    recipe = from_string("fashion:rc2f2:ptripletN")
    assert (recipe.data, recipe.model, recipe.epochs, recipe.batches.pairs) == (Fashion(), C2F2(512), 8, 128)
    assert (recipe.optimiser.lr, recipe.optimiser.weight_decay) == (1e-3, 1e-7)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("ptripletN", Triplet(Spherical(), Random(), 0.2)),
        ("ptripletC", Triplet(Cosine(), Random(), 0.2)),
        ("ptripletE", Triplet(Euclidean(), Random(), 1.0)),
        ("pmtripletE", Triplet(Euclidean(), SemiHard(1.0), 1.0)),
        ("pmtripletN", Triplet(Spherical(), SemiHard(0.2), 0.2)),
        ("pstripletC", Triplet(Cosine(), SoftHard("as-published"), 0.2)),
        ("pdtripletN", Triplet(Spherical(), DistanceWeighted(0.0, 2.0, True), 0.2)),
        ("phtripletN", Triplet(Spherical(), Hardest(), 0.2)),
        ("pcontrastN", Contrastive(Spherical(), Random(), 1.0)),
        ("pcontrastE", Contrastive(Euclidean(), Random(), 1.0)),
        ("pcontrastC", Contrastive(Cosine(), Random(), 0.0)),
    ],
)
def test_the_loss(loss, expected):
    assert from_string(f"fashion:rc2f2:{loss}").loss == expected


def test_every_combination_is_a_recipe_that_survives_json():
    losses = [f"p{m}triplet{d}" for m in MINERS for d in METRICS] + [f"pcontrast{d}" for d in METRICS]
    for loss in losses:
        recipe = from_string(f"mnist:rc2f2pf:{loss}")
        assert recipe_from_json(recipe_to_json(recipe)) == recipe
        assert recipe.name == f"mnist-rc2f2pf-{loss}"


def test_strings_are_the_named_recipes():
    for text, named in (("fashion:rc2f2p:ptripletN", act_fashion_c2f2()), ("mnist:rc2f2d:ptripletN", est_mnist_c2f2())):
        recipe = from_string(text)
        for field in ("data", "model", "loss", "defense", "batches", "optimiser", "epochs", "paper"):
            assert getattr(recipe, field) == getattr(named, field), field


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fashion:rc2f2", "has 2 parts"),
        ("fashon:rc2f2:ptripletN", "Did you mean fashion"),
        ("birds:rc2f2:ptripletN", "data set 'birds' is not available"),
        ("cub:rc2f2:ptripletN", "rc2f2 is a network for images of 28x28 pixels"),
        ("fashion:rc2f3:ptripletN", "Did you mean rc2f2"),
        ("fashion:rc2f2ghm:ptripletN", "comes later"),
        ("fashion:rc2f2:pstripN", "loss 'pstripN' is not available"),
        ("fashion:rc2f2:pxtripletN", "Did you mean"),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(text, said):
    with pytest.raises(ValueError, match=r"comes later|has 2 parts") as error:
        from_string(text)
    assert said in str(error.value)
