"""Losses of pytorch-metric-learning by name."""

import sys

import pytest
import torch
from pytorch_metric_learning import losses

from robustdml import pml
from robustdml.distance import Cosine, Dot, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import Pml, Triplet, TripletLoss, pml_loss
from robustdml.mining import PmlMiner, SemiHard
from robustdml.types import Triplets
from tests.toys import generator

LABELS = torch.arange(4).repeat_interleave(3)
INDEX = torch.arange(12)
NEEDED = {"RankedListLoss": {"margin": 0.4, "Tn": 1}}
NAMES = pml.names("losses")


def embeddings():
    return torch.randn(12, 8, generator=generator(2)).requires_grad_()


def evaluated(loss, z, triplets=None, seed=0):
    return loss(z, LABELS, triplets, draws=Draws(seed), index=INDEX)


def test_every_loss_of_the_library_is_there_or_refused_with_a_reason():
    there = {n for n, c in vars(losses).items() if isinstance(c, type) and "Base" not in n and "Mixin" not in n}
    assert there - {"GenericPairLoss"} == {*NAMES} | (there & set(pml.REFUSED))


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:__array_wrap__")  # inside theirs
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_trains_and_comes_back_from_its_state(name):
    config = Pml(name, NEEDED.get(name, {}), pml_loss(name).distance)
    built, again = config.build(4, 8), config.build(4, 8)
    z = embeddings()
    value = evaluated(built, z)
    weights = [p for group in built.parameter_groups().values() for p in group]
    gradients = torch.autograd.grad(value, [z, *weights])
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert bool(gradients[0].any())
    assert {id(p) for p in built.parameters()} == {id(p) for p in weights}
    other = torch.randn(12, 8, generator=generator(5))
    again.load_state_dict(built.state_dict())
    assert torch.equal(evaluated(built, other), evaluated(again, other))  # running statistics included


def test_a_loss_that_no_batches_fit_is_refused():
    with pytest.raises(ValueError, match="pml:SmoothAPLoss cannot be used here: it needs equally many images of every"):
        pml_loss("SmoothAPLoss")


def test_a_loss_is_theirs_with_their_arguments():
    z = embeddings()
    assert torch.equal(
        evaluated(Pml("CircleLoss", {"m": 0.3, "gamma": 32}, Cosine()), z),
        losses.CircleLoss(m=0.3, gamma=32)(torch.nn.functional.normalize(z, dim=1), LABELS),
    )


def test_reducers_and_regularisers_are_named_in_the_arguments():
    z = embeddings()
    triplets = Triplets(torch.tensor([0, 3, 6]), torch.tensor([1, 4, 7]), torch.tensor([3, 9, 0]))
    config = Pml("TripletMarginLoss", {"margin": 0.2, "reducer": "MeanReducer"})
    torch.testing.assert_close(evaluated(config, z, triplets), evaluated(Triplet(), z, triplets), atol=5e-6, rtol=0)
    kept = Pml("TripletMarginLoss", {"reducer": {"name": "ThresholdReducer", "low": 0.3}})
    assert float(evaluated(kept, z).detach()) > 0.3
    norms = {"embedding_regularizer": "LpRegularizer", "embedding_reg_weight": 0.5, "margin": 0.2}
    pulled = Pml("TripletMarginLoss", norms, Euclidean())
    free = Pml("TripletMarginLoss", {"margin": 0.2}, Euclidean())
    torch.testing.assert_close(evaluated(pulled, z) - evaluated(free, z), 0.5 * z.norm(dim=1).mean())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CircleLoss", Cosine()),
        ("TripletMarginLoss", Spherical()),
        ("ArcFaceLoss", Cosine()),
        ("NCALoss", Spherical()),
        ("RankedListLoss", Spherical()),
    ],
)
def test_the_name_alone_chooses_the_distance_it_was_made_for(name, expected):
    assert pml_loss(name) == Pml(name, {}, expected, None)


@pytest.mark.parametrize("distance", [Spherical(), Euclidean(), Cosine(), Dot()], ids=repr)
def test_the_distance_of_the_recipe_is_what_the_loss_trains(distance):
    inner = Pml("TripletMarginLoss", {}, distance).build(4, 8).inner
    assert pml.distance_of(inner) == distance


def test_squared_distances_stay_squared_on_other_embeddings():
    assert Pml("NCALoss", {}, Euclidean()).build(4, 8).inner.distance.power == losses.NCALoss().distance.power == 2


def test_miners_of_theirs_and_of_ours_choose_the_tuples():
    z = embeddings()
    theirs = PmlMiner("TripletMarginMiner", {"margin": 0.3, "type_of_triplets": "semihard"})
    found = theirs(z, LABELS, Spherical(), draws=Draws(0), index=INDEX)
    mean = {"margin": 0.3, "reducer": "MeanReducer"}
    assert torch.equal(
        evaluated(Pml("TripletMarginLoss", mean, miner=theirs), z), evaluated(Pml("TripletMarginLoss", mean), z, found)
    )
    labels = torch.arange(6).repeat_interleave(2)
    ours = SemiHard(0.3)
    mined = ours(z.detach(), labels, Spherical(), draws=Draws(0), index=INDEX)
    value = Pml("TripletMarginLoss", mean, miner=ours)(z, labels, draws=Draws(0), index=INDEX)
    torch.testing.assert_close(
        value, Triplet(margin=0.3)(z, labels, mined, draws=Draws(0), index=INDEX), atol=5e-6, rtol=0
    )


def test_a_miner_that_finds_nothing_costs_nothing_and_keeps_the_graph():
    z = torch.eye(4).repeat_interleave(3, dim=0).requires_grad_()
    hard = PmlMiner("TripletMarginMiner", {"margin": 0.1, "type_of_triplets": "hard"}, sampled=True)
    for name in ("TripletMarginLoss", "NCALoss", "AngularLoss"):
        value = evaluated(Pml(name, miner=hard), z)
        assert float(value.detach()) == 0
        assert float(torch.autograd.grad(value, z)[0].abs().max()) == 0


def test_neighbourhood_components_without_positives_cost_nothing():
    z = torch.randn(4, 8, generator=generator()).requires_grad_()
    value = Pml("NCALoss")(z, torch.arange(4), draws=Draws(0), index=torch.arange(4))
    assert float(value.detach()) == 0


def test_their_draws_are_ours_and_the_global_generator_is_left_alone():
    z, before = embeddings(), torch.random.get_rng_state()
    config = Pml("TripletMarginLoss", {"triplets_per_anchor": 2})
    first, again, other = (evaluated(config, z, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "arguments", "distance", "said"),
    [
        ("CircelLoss", {}, Cosine(), "has no 'CircelLoss' among its losses. Did you mean CircleLoss"),
        ("CircleLoss", {"gama": 1}, Cosine(), "pml:CircleLoss has no argument 'gama'. Did you mean gamma"),
        ("CircleLoss", {}, Euclidean(), "Its own distance is Cosine(): set it with --loss.distance Cosine"),
        (
            "SoftTripleLoss",
            {},
            Spherical(),
            "does not compare embeddings with Spherical(). Its own distance is Cosine()",
        ),
        ("RankedListLoss", {}, Spherical(), "'margin' and 'Tn'. Arguments are set with --loss.arguments.NAME VALUE"),
        ("VICRegLoss", {}, Spherical(), "it compares two embeddings of the same images"),
        ("CrossBatchMemory", {}, Spherical(), "it takes other losses as arguments"),
        ("ManifoldLoss", {}, Spherical(), "it takes no labels"),
        ("TripletMarginLoss", {"reducer": "MeenReducer"}, Spherical(), "among its reducers. Did you mean MeanReducer"),
        ("TripletMarginLoss", {"distance": "x"}, Spherical(), "has no argument 'distance'"),
    ],
)
def test_what_cannot_be_built_is_answered_with_what_can(name, arguments, distance, said):
    with pytest.raises(ValueError, match=r".") as error:
        Pml(name, arguments, distance).build(4, 8)
    assert said in str(error.value)


def test_a_reducer_that_does_not_reduce_is_named():
    with pytest.raises(
        ValueError, match=r"pml:TripletMarginLoss returned dict, not one number\. Leave out its reducer"
    ):
        evaluated(Pml("TripletMarginLoss", {"reducer": "DoNothingReducer"}), embeddings())


def test_a_loss_with_weights_is_built_first():
    with pytest.raises(ValueError, match=r"pml:ArcFaceLoss has weights: call build"):
        evaluated(Pml("ArcFaceLoss", {}, Cosine()), embeddings())


def test_a_distance_without_a_counterpart_is_named():
    class Odd:
        largest = None

        def place(self, z):
            return z

        matrix = pairs = against = resolution = rounding = place

    with pytest.raises(ValueError, match=r"has no distance like Odd\(\)"):
        Pml("TripletMarginLoss", {}, Odd()).build(4, 8)


def test_tuple_level_defenses_cannot_have_it():
    assert not isinstance(Pml(), TripletLoss)
    assert not isinstance(Pml().build(4, 8), TripletLoss)


def test_without_the_library_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    assert Pml("CircleLoss").name == "CircleLoss"  # a recipe can be read, and a trained model used, without it
    with pytest.raises(ImportError, match=r"need the extra 'pml' .*pip install 'robustdml\[pml\]'"):
        pml_loss("CircleLoss")
