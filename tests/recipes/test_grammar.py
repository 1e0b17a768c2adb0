"""RobRank's experiment strings."""

import re
from dataclasses import replace
from itertools import product

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data import Fashion, Mnist
from robustdml.data.batches import ClassBatches, Spc2, TripletBatches
from robustdml.defenses import (
    AdaptedAntiCollapse,
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    ClasswiseBarlow,
    FreeTraining,
    Gradual,
    HardnessManipulation,
    MinMax,
    Mixture,
    Penalised,
    Plain,
    Sampled,
    ShiftSuppression,
    ShiftTraining,
    StoppedMinMax,
    TripletCollapse,
)
from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.losses import (
    Contrastive,
    CrossEntropy,
    Gil,
    Hybrid,
    InfoNce,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    NPair,
    Pml,
    Quadruplet,
    Rhomboid,
    Snr,
    Triplet,
)
from robustdml.mining import (
    DistanceWeighted,
    Hardest,
    PmlMiner,
    Random,
    RandomTriplet,
    SemiHard,
    SoftHard,
    Switched,
    WideAngle,
)
from robustdml.models import C2F2, Backbone, BackboneHybrid, C2F2Classifier, C2F2Hybrid, LeNet, Pretrained
from robustdml.recipe import Adam, Sgd, Validation, recipe_from_json, recipe_to_json
from robustdml.recipes import adjusted, networks
from robustdml.recipes.grammar import from_string
from robustdml.recipes.loss_names import NOTES, PARTS
from robustdml.recipes.robrank import (
    ADVERSARY_28,
    ADVERSARY_224,
    act_fashion_c2f2,
    amd_fashion_c2f2,
    amdsemi_fashion_c2f2,
    est_mnist_c2f2,
    freeat_fashion_c2f2,
    ramd_fashion_c2f2,
    training_adversary,
)
from robustdml.recipes.suffixes import SUFFIXES, defended, is_suffix, until_saturated

WEIGHTED = DistanceWeighted(0.0, 2.0, True)
SEMIHARD = PmlMiner("TripletMarginMiner", {"margin": 1.0, "type_of_triplets": "semihard"}, True)
SOFTHARD = SoftHard("as-published")
FGSM = replace(ADVERSARY_28, search=Pgd(1, 77 / 255))
SEVEN = replace(ADVERSARY_28, search=Pgd(7, 3 / 255))
SATURATED = replace(ADVERSARY_28, search=Pgd(32, 3 / 255, saturation=1e-7))
EXPECTED = {
    "": Plain(),
    "d": ShiftTraining(ADVERSARY_28),
    "df": ShiftTraining(FGSM),
    "e": ShiftSuppression(ADVERSARY_28),
    "r": AnchoredShiftTraining(ADVERSARY_28),
    "p": AntiCollapse(ADVERSARY_28),
    "pf": AntiCollapse(FGSM),
    "px": Mixture(AntiCollapse(ADVERSARY_28), Plain(), 0.5),
    "pa": AdaptedAntiCollapse(ADVERSARY_28),
    "pbt": Penalised(AntiCollapse(ADVERSARY_28), ClasswiseBarlow(1e-5, 0.005, 3)),
    "m": MinMax(ADVERSARY_28),
    "t": TripletCollapse(ADVERSARY_28),
    "a": AlternatingCollapse(ADVERSARY_28),
    "amd": MinMax(SEVEN),
    "ramd": AnchoredMinMax(SEVEN),
    "amdsemi": StoppedMinMax(SATURATED),
    "amdsemiaap": StoppedMinMax(SATURATED, structure=1.0),
    "amdsemiact": Mixture(AntiCollapse(ADVERSARY_28), StoppedMinMax(SATURATED), 0.5),
    "hmix": Mixture(*(HardnessManipulation(SATURATED, s, Sampled(SemiHard(0.2))) for s in (Random(), SOFTHARD)), 0.5),
    "fatnone": FreeTraining(Linf(0.0), 3 / 255, 4),
    "fatamd": FreeTraining(Linf(77 / 255), 3 / 255, 4),
    "fatamdsemi": FreeTraining(Linf(77 / 255), 3 / 255, 4, forget_above=-0.2),
}


@pytest.mark.parametrize("suffix", EXPECTED)
def test_the_suffix_of_the_model_is_the_defense(suffix):
    recipe = from_string(f"fashion:rc2f2{suffix}:ptripletN")
    assert recipe.defense == EXPECTED[suffix]
    assert recipe.epochs == (2 if suffix.startswith("fat") else 8)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fashion:rc2f2hmetsm:ptripletN", HardnessManipulation(SATURATED, SOFTHARD, Sampled(SemiHard(0.2)))),
        ("fashion:rc2f2ghmetsm:ptripletN", HardnessManipulation(SATURATED, SOFTHARD, Gradual())),
        ("fashion:rc2f2ghmetssi:ptripletN", HardnessManipulation(SATURATED, SOFTHARD, Gradual(), structure=0.5)),
        ("fashion:rc2f2rhl2rh:ptripletN", HardnessManipulation(SATURATED, Random(), Sampled(Hardest()), "L2", "pn")),
        ("fashion:rc2f2hmkldm:ptripletN", HardnessManipulation(
            ADVERSARY_28, DistanceWeighted(0.0, 2.0, True), Sampled(SemiHard(0.2)), "KL"
        )),
        ("cub:rres18ghmetsmi:ptripletN", HardnessManipulation(
            until_saturated(ADVERSARY_224), SOFTHARD, Gradual(), structure=0.5
        )),
        ("sop:rres18ghmetsmi:ptripletN", HardnessManipulation(
            until_saturated(ADVERSARY_224), SOFTHARD, Gradual(), structure=0.05
        )),
    ],
)  # fmt: skip
def test_the_letters_of_hardness_manipulation(text, expected):
    recipe = from_string(text)
    assert recipe.defense == expected
    assert recipe.paper == "robdml"
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


@pytest.mark.parametrize("loss", ["ptripletE", "ptripletC"])
def test_hardness_manipulation_is_known_of_the_unit_sphere_alone(loss):
    with pytest.raises(ValueError, match=f"{loss}: hardness manipulation is defined on the unit sphere. Use ptripletN"):
        from_string(f"fashion:rc2f2ghmetsm:{loss}")


@pytest.mark.parametrize("source", "rmsdh")
@pytest.mark.parametrize("destination", "rmsdh")
def test_every_combination_of_letters_resolves(source, destination):
    for g, form, objective, i in product(("", "g"), ("hm", "rh"), ("et", "l2", "kl"), ("", "i")):
        suffix = f"{g}{form}{objective}{source}{destination}{i}"
        found = defended("rres18", suffix, ADVERSARY_224, "cub")
        assert isinstance(found, Plain) == (source == destination and not g)
        if not g:
            continue
        assert (found.destination, found.roles, found.structure) == (
            Gradual(), "apn" if form == "hm" else "pn", 0.5 if i else 0.0
        )  # fmt: skip


def test_equal_letters_train_plainly_with_that_sampler():
    recipe = from_string("fashion:rc2f2hmetss:ptripletN")
    assert (recipe.defense, recipe.loss) == (Plain(), Triplet(Spherical(), SOFTHARD, 0.2))
    assert "nothing is moved: plain training" in recipe.note
    with pytest.raises(ValueError, match="known of the triplet loss alone"):
        from_string("fashion:rc2f2hmetrr:pcontrastN")


def test_kl_with_a_gradual_adversary_is_warned_of():
    with pytest.warns(UserWarning, match="rounding noise"):
        from_string("fashion:rc2f2ghmklsm:ptripletN")


def test_every_suffix_is_tested():
    assert SUFFIXES.keys() == EXPECTED.keys()


def test_the_budget_follows_the_images_and_seven_steps_are_for_one_backbone():
    for shape in ((3, 224, 224), (3, 32, 32), None):
        assert training_adversary(shape) == ADVERSARY_224
    assert training_adversary((1, 28, 28)) == ADVERSARY_28
    assert training_adversary((1, 28, 28), eps=2 / 255, steps=5).search == Pgd(5, 2 / 255)
    assert defended("rres18", "amd", ADVERSARY_224) == MinMax(ADVERSARY_224)
    assert defended("rc2f2", "amd", ADVERSARY_28) == MinMax(SEVEN)
    assert from_string("fashion:rlenetamd:ptripletN").defense == MinMax(ADVERSARY_28)
    assert from_string("fashion:rlenetfatamd:ptripletN").epochs == 4


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("rc2f2:ptripletBTN", Plain()),
        ("rc2f2d:pstripletBTN", ShiftTraining(ADVERSARY_28)),
        ("rc2f2amd:ptripletBTN", MinMax(SEVEN)),
        ("rc2f2pbt:ptripletBTN", AntiCollapse(ADVERSARY_28)),
    ],
)
def test_barlow_twins_in_the_name_of_the_loss_are_a_penalty_once(text, inner):
    recipe = from_string(f"fashion:{text}")
    assert recipe.defense == Penalised(inner, ClasswiseBarlow())
    assert recipe.loss == from_string(f"fashion:{text.replace('BT', '')}").loss


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("rc2f2dco", "robustdml diagnose RUN --defenses EST"),
        ("rlenetpbe", "robustdml diagnose RUN --defenses ACT"),
    ],
)
def test_names_without_a_recipe_are_refused_with_the_reason(network, said):
    with pytest.raises(ValueError, match=f"^fashion:{network}:ptripletN: .*{said}"):
        from_string(f"fashion:{network}:ptripletN")


def test_a_defense_that_cannot_train_the_loss_says_why():
    with pytest.raises(ValueError, match=r"^fashion:rc2f2amdsemi:pcontrastN: StoppedMinMax needs the triplet loss"):
        from_string("fashion:rc2f2amdsemi:pcontrastN")


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
        ("pcontrastC", Contrastive(Cosine(), Random(), 1.0)),
        ("pdcontrastN", Contrastive(Spherical(), WEIGHTED, 1.0)),
        ("pDcontrastN", Contrastive(Spherical(), Switched(WEIGHTED, 0.15), 1.0)),
        ("pDtripletN", Triplet(Spherical(), Switched(WEIGHTED, 0.15), 0.2)),
        ("ptripxaN", Triplet(Spherical(), Random(), 0.2, "fixed")),
        ("pmarginE", Margin(Euclidean(), Random(), 0.2, 0.6)),
        ("pdmarginN", Margin(Spherical(), WEIGHTED, 0.2, 0.6)),
        ("pquadN", Quadruplet(Spherical(), Random(), 0.2, 0.1, "as-published")),
        ("pquadE", Quadruplet(Euclidean(), Random(), 1.0, 0.5, "mined")),
        ("pdtripletC", Triplet(Cosine(), DistanceWeighted(0.0, 2.0, False), 0.2)),
        ("pdquadN", Quadruplet(Spherical(), WEIGHTED, 0.2, 0.1, "as-published")),
        ("prhomE", Rhomboid(Euclidean(), Random(), 1.0)),
        ("pdrhomN", Rhomboid(Spherical(), WEIGHTED, 0.2)),
        ("pgilC", Gil(Cosine(), Random())),
        ("psnrN", Snr(Spherical(), Random(), 0.2, 5e-3)),
        ("pgliftE", LiftedStructure(Euclidean(), 1.0, 5e-3)),
        ("pgliftN", LiftedStructure(Spherical(), 0.2, 5e-3)),
        ("pnpairE", NPair(Euclidean(), 5e-3)),
        ("pmsN", MultiSimilarity(Spherical(), 2.0, 40.0, 0.5, 0.1, "as-published")),
        ("piceC", InfoNce(Cosine(), 0.0)),
        ("pstripN", Pml("TripletMarginLoss", {"margin": 1.0}, Spherical(), SEMIHARD)),
        ("pncaN", Pml("NCALoss", {}, Spherical(), SEMIHARD)),
        ("pangularN", Pml("AngularLoss", {"alpha": 40}, Spherical(), WideAngle(20.0))),
    ],
)
def test_the_loss(loss, expected):
    assert from_string(f"fashion:rc2f2:{loss}").loss == expected


def test_the_boundary_of_the_margin_loss_has_its_published_optimiser():
    assert from_string("fashion:rc2f2:pmarginN").groups == {"beta": Sgd(lr=5e-4, momentum=0.0)}
    assert from_string("fashion:rc2f2:ptripletN").groups == {}


def test_tuple_level_defenses_take_the_losses_that_rob_rank_gives_them():
    for loss in ("pmarginN", "psnrN", "pcontrastN", "pstripletN"):
        assert isinstance(from_string(f"fashion:rc2f2p:{loss}").defense, AntiCollapse)
    with pytest.raises(ValueError, match="AntiCollapse needs a loss defined on triplets, got Quadruplet"):
        from_string("fashion:rc2f2p:pquadN")


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("contrast", "RobRank lists it and has no such loss"),
        ("contrastiveE", "no such loss"),
        ("pcontN", "pcontrastN has one"),
        ("pDmarginN", "--loss.miner Switched"),
        ("pdtripletE", "not defined off the unit sphere"),
    ],
)
def test_a_name_without_meaning_is_refused_with_the_reason(loss, reason):
    with pytest.raises(ValueError, match=f"fashion:rc2f2:{loss}: the loss '{loss}' has no meaning: .*{reason}"):
        from_string(f"fashion:rc2f2:{loss}")


@pytest.mark.parametrize("wrong", ["pxtripletN", "pmmarginN", "pdgilN", "pmsE", "piceN", "pstripE", "pDquadN"])
def test_a_letter_that_a_loss_does_not_take_is_answered_with_those_it_takes(wrong):
    with pytest.raises(ValueError, match=rf"the loss '{wrong}' is not available\. Did you mean .*pquadN"):
        from_string(f"fashion:rc2f2:{wrong}")


def test_every_combination_is_a_recipe_that_survives_json():
    for loss in PARTS:
        recipe = from_string(f"mnist:rc2f2:{loss}")
        assert recipe_from_json(recipe_to_json(recipe)) == recipe
        assert recipe.name == f"mnist-rc2f2-{loss}"


def test_strings_are_the_named_recipes():
    for text, named in (
        ("fashion:rc2f2p:ptripletN", act_fashion_c2f2()),
        ("mnist:rc2f2d:ptripletN", est_mnist_c2f2()),
        ("fashion:rc2f2amd:ptripletN", amd_fashion_c2f2()),
        ("fashion:rc2f2ramd:ptripletN", ramd_fashion_c2f2()),
        ("fashion:rc2f2amdsemi:ptripletN", amdsemi_fashion_c2f2()),
        ("fashion:rc2f2fatamd:ptripletN", freeat_fashion_c2f2()),
    ):
        recipe = from_string(text)
        for field in ("data", "model", "loss", "defense", "batches", "optimiser", "epochs", "paper"):
            assert getattr(recipe, field) == getattr(named, field), field


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fashion:rc2f2", "has 2 parts"),
        ("fashon:rc2f2:ptripletN", "Did you mean fashion"),
        ("birds:rc2f2:ptripletN", "data set 'birds' is not available"),
        ("ilsvrc:rres18:ptripletN", "data set 'ilsvrc' is not available"),
        ("fashion:rc2f3:ptripletN", "Did you mean rc2f2"),
        ("fashion:rc2f2ghm:ptripletN", "Did you mean"),
        ("fashion:rc2f2:cptripletBTN", "the loss 'cptripletBTN' is not available"),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(text, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        from_string(text)
    assert "later" not in str(error.value)


@pytest.mark.parametrize("letter", "CEN")
@pytest.mark.parametrize(
    ("prefix", "small", "large"),
    [
        ("c", (ClassBatches(128), 16), (ClassBatches(112), 150)),
        ("t", (TripletBatches(128), 5), (TripletBatches(37), 50)),
    ],
)
def test_triplets_of_other_batches_are_what_rob_rank_configures_and_cannot_build(prefix, small, large, letter):
    network = networks.NETWORKS["rres18"]
    fixed = networks.settings(network, "", "cub", networks.check(network, "cub", f"{prefix}tripletN", "text"))
    assert (fixed["batches"], fixed["epochs"]) == large
    for suffix in ("", "p"):
        recipe = from_string(f"fashion:rc2f2{suffix}:{prefix}triplet{letter}")
        assert (recipe.batches, recipe.epochs) == small
        assert isinstance(recipe.loss.miner, RandomTriplet if prefix == "c" else Random)
        assert replace(recipe.loss, miner=Random()) == from_string(f"fashion:rc2f2:ptriplet{letter}").loss
        assert "cannot build it" in recipe.note


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("pcontrastC", "--loss.margin 0"),
        ("pdtripletC", "--loss.miner.as_published true"),
        ("pquadN", "--loss.second mined"),
        ("pquadE", "--loss.second as-published"),
        ("pmsC", "--loss.pairs informative"),
    ],
)
def test_a_name_that_does_not_mean_what_one_expects_says_so_and_how_to_have_the_other(loss, said):
    recipe = from_string(f"fashion:rc2f2:{loss}")
    path, value = said.removeprefix("--").split()
    assert f"({said}" in recipe.note
    assert adjusted(recipe, [(path, value)]).loss != recipe.loss
    assert from_string(f"mnist:rlenet:{loss}").note.endswith(f"; {NOTES[loss]}")  # after what the network says


def test_the_corrected_contrastive_loss_on_cosines_does_not_collapse():
    """RobRank's has no negative term: its minimum is a point."""
    loss, far = from_string("fashion:rc2f2:pcontrastC").loss, torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    near = far[:, [0, 1, 0]]
    assert float(loss.on_triplets(far)) == 0
    assert float(loss.on_triplets(near)) == pytest.approx(1)
    assert float(replace(loss, margin=0.0).on_triplets(near)) == 0


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
    network, suffix = networks.split(name + "p", is_suffix)
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
    network, suffix = networks.split(name + "d", is_suffix)
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
        ("cub:rc2f2:ptripletN", "rc2f2 takes images of 28x28, which cub has not. It goes with mnist, fashion"),
        ("fashion:cres18:ce", "It goes with cifar10, cifar100"),
        ("fashion:rc2f2:ce", "rc2f2 does ranking, which goes with a metric loss"),
        ("fashion:cc2f2:ptripletN", "cc2f2 does classification, which goes with the loss ce"),
        ("fashion:cc2f2p:ce", "model 'cc2f2p' is not available"),
        ("fashion:hc2f2p:ptripletN", "model 'hc2f2p' is not available"),
        ("fashion:hc2f2:ctripletN", "hc2f2 is trained on pairs"),
        ("fashion:hc2f2:ptripletBTN", "Barlow twins would see class scores of hc2f2 too. Use ptripletN"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_with_the_reason(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        from_string(text)
