"""RobRank's experiment strings."""

import re

import pytest

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data import Fashion, Mnist
from robustdml.data.batches import ClassBatches, Spc2, TripletBatches
from robustdml.defenses import AntiCollapse, Plain, ShiftTraining
from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.losses import Contrastive, CrossEntropy, Hybrid, Triplet
from robustdml.mining import DistanceWeighted, Hardest, Random, SemiHard, SoftHard
from robustdml.models import C2F2, Backbone, BackboneHybrid, C2F2Classifier, C2F2Hybrid, LeNet, Pretrained
from robustdml.recipe import Adam, Sgd, Validation, recipe_from_json, recipe_to_json
from robustdml.recipes import networks
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
        ("ilsvrc:rres18:ptripletN", "data set 'ilsvrc' is not available"),
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


# ---- networks


def test_a_classifier_is_trained_as_published():
    recipe = from_string("mnist:cc2f2:ce")
    assert (recipe.model, recipe.loss, recipe.defense) == (C2F2Classifier(10), CrossEntropy(), Plain())
    assert (recipe.epochs, recipe.batches, recipe.optimiser) == (16, ClassBatches(1000), Adam(1e-3, 1e-7))
    assert from_string("fashion:cslp:ce").epochs == from_string("fashion:clenet:ce").epochs == 10
    assert from_string("mnist:cc2f2:ce").start is None


def test_a_hybrid_is_a_metric_loss_and_class_scores():
    recipe = from_string("fashion:hc2f2:pmtripletN")
    assert recipe.model == C2F2Hybrid(512, 10)
    assert recipe.loss == Hybrid(512, from_string("fashion:rc2f2:pmtripletN").loss)
    assert (recipe.epochs, recipe.batches, recipe.validation.every) == (8, Spc2(128), 1)


RANKING = ["rres18", "rres50", "rmnas05", "rmnas10", "ribn", "reffb0", "rswint", "rswins", "rswinb", "rswinl"]


@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize(("dataset", "classes"), [("cub", 200), ("cars", 196), ("sop", 22634)])
def test_large_networks_are_pretrained_and_keep_their_statistics(name, dataset, classes):
    network, suffix = networks.split(name + "p", ["", "d", "p"])
    assert (network.name, suffix, network.group.classes[dataset]) == (name, "p", classes)
    fixed = networks.settings(network, suffix, dataset, "p")
    assert isinstance(fixed["model"], Backbone)
    assert (fixed["model"].dim, fixed["model"].batchnorm) == (512, "frozen-statistics")
    assert (fixed["start"], fixed["batches"], fixed["epochs"]) == (Pretrained(), Spc2(56), 75)
    assert (fixed["optimiser"], fixed["validation"]) == (Adam(1e-5, 4e-4), Validation(every=5))
    assert network.group.adversary == Adversary(Linf(8 / 255), Pgd(32, 1 / 255))


@pytest.mark.parametrize("name", RANKING)
def test_statistics_learn_only_under_est_of_three_networks(name):
    """RobRank leaves them unfrozen there by an accident of its flags, and its published rows are of that."""
    network, suffix = networks.split(name + "d", ["", "d", "df"])
    found = networks.settings(network, suffix, "cub", "p")["model"].batchnorm
    assert (found == "train") == (name in ("rres18", "rres50", "rmnas10"))
    assert networks.settings(network, "df", "cub", "p")["model"].batchnorm == "frozen-statistics"


def test_epochs_and_batches_follow_the_kind_of_batch():
    large, small = networks.NETWORKS["rres18"], networks.NETWORKS["rc2f2"]
    for network, dataset, prefix, expected in (
        (large, "cub", "c", (150, ClassBatches(112))), (large, "cub", "t", (50, TripletBatches(37))),
        (small, "mnist", "c", (16, ClassBatches(128))), (small, "mnist", "t", (5, TripletBatches(128))),
        (small, "mnist", "p", (8, Spc2(128))),
    ):  # fmt: skip
        found = networks.settings(network, "", dataset, prefix)
        assert (found["epochs"], found["batches"]) == expected
    hybrid = networks.NETWORKS["hres18"]
    assert [networks.settings(hybrid, "", d, "p")["epochs"] for d in ("cub", "cars", "sop")] == [75, 75, 50]
    assert networks.settings(hybrid, "", "sop", "p")["model"] == BackboneHybrid(
        "resnet18", 512, 22634, "frozen-statistics"
    )


def test_cifar_classifiers_begin_at_random_and_have_milestones():
    for name, backbone in (("cres18", "resnet18"), ("cres50", "resnet50")):
        ten = networks.settings(networks.NETWORKS[name], "", "cifar10", "c")
        assert (ten["model"], ten["start"]) == (Backbone(backbone, 10), None)
        assert (ten["epochs"], ten["milestones"], ten["batches"]) == (200, (100, 150), ClassBatches(256))
        assert ten["optimiser"] == Sgd(0.1, 0.9, 2e-4)
        hundred = networks.settings(networks.NETWORKS[name], "", "cifar100", "c")
        assert (hundred["model"].dim, hundred["epochs"], hundred["milestones"]) == (100, 300, (100, 200))


def test_why_lenet_trains_longer_is_part_of_the_recipe():
    assert "16 epochs" in from_string("mnist:rlenet:ptripletN").note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "fashion:rres18:ptripletN",
            "rres18 takes images of 224x224, which fashion has not. It goes with cub, cars, sop",
        ),
        ("fashion:cres18:ce", "It goes with cifar10, cifar100"),
        ("fashion:rc2f2:ce", "rc2f2 does ranking, which goes with a metric loss"),
        ("fashion:cc2f2:ptripletN", "cc2f2 does classification, which goes with the loss ce"),
        ("fashion:cc2f2p:ce", "model 'cc2f2p' is not available"),
        ("fashion:hc2f2p:ptripletN", "model 'hc2f2p' is not available"),
        ("fashion:hc2f2:ctripletN", "hc2f2 is trained on pairs"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_with_the_reason(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        from_string(text)
