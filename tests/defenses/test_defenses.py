"""Training steps of defenses."""

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks import Attack
from robustdml.attacks.goals import EmbeddingShift
from robustdml.defenses import (
    DEFENSES,
    AdaptedAntiCollapse,
    AdversarialTraining,
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    Benign,
    CollapseAware,
    Constant,
    FreeTraining,
    Growing,
    HardnessManipulation,
    MinMax,
    Mixture,
    Penalised,
    Plain,
    Replay,
    RoleAscent,
    ShiftSuppression,
    ShiftTraining,
    SingularValues,
    StoppedMinMax,
    TeacherMatching,
    TripletCollapse,
)
from robustdml.defenses.defense import clean_embeddings, mined_on_clean
from robustdml.distance import Cosine, Distance, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import Contrastive, Loss, Triplet
from robustdml.mining import Hardest
from robustdml.models.embedder import Layers, frozen
from robustdml.types import Batch, Triplets
from tests.toys import blobs, generator, linear, network, scene_of, unchanged

ADVERSARY = Adversary(Linf(0.05), Pgd(3, 0.02))
MADE = [
    Plain(),
    ShiftTraining(ADVERSARY),
    ShiftSuppression(ADVERSARY),
    AnchoredShiftTraining(ADVERSARY),
    AntiCollapse(ADVERSARY),
    AdaptedAntiCollapse(ADVERSARY),
    MinMax(ADVERSARY),
    AnchoredMinMax(ADVERSARY),
    TripletCollapse(ADVERSARY),
    AlternatingCollapse(ADVERSARY),
    StoppedMinMax(ADVERSARY),
    HardnessManipulation(ADVERSARY, destination=Constant(-0.02)),
    RoleAscent(ADVERSARY),
    CollapseAware(ADVERSARY),
    FreeTraining(Linf(0.05), 0.02, repeats=2),
    Mixture(AntiCollapse(ADVERSARY), Plain(), share=1.0),
    Penalised(AntiCollapse(ADVERSARY), SingularValues()),
]
LOSSES = [Triplet(margin=1.0), Triplet(Cosine(), Hardest()), Contrastive()]


def fits(defense, loss):
    try:
        defense.check(loss)
    except ValueError:
        return False
    return True


def named(it):
    return type(it).__name__


def every(*without):
    """All defenses but those of some classes."""
    kept = [d for d in MADE if type(d) not in without]
    return pytest.mark.parametrize("defense", kept, ids=named)


def combined(*without):
    """The same with every loss that they can train."""
    kept = [(d, loss) for d in MADE if type(d) not in without for loss in LOSSES if fits(d, loss)]
    return pytest.mark.parametrize(("defense", "loss"), kept, ids=named)


@dataclass(frozen=True)
class BatchLevel:
    """A loss that knows no triplets."""

    distance: Distance = Spherical()  # noqa: RUF009 (frozen)

    def __call__(self, z, labels, triplets=None, *, draws, index):
        return z.square().mean()

    def build(self, num_classes, dim):
        return self

    def parameter_groups(self):
        return {}


def batch(seed=0, triplets=None):
    images, labels = blobs(4, 2, seed=seed)
    return Batch(images, labels, torch.arange(8) + 10, triplets)


def step(defense, embedder, loss, given=None, draws=None, memory=None):
    return defense(
        embedder, loss, batch() if given is None else given, memory=memory or {}, progress=0.5,
        draws=Draws(0) if draws is None else draws, mean=lambda t: t,
    )  # fmt: skip


def without_budget(defense):
    """The same defense with a ball of radius 0."""
    if isinstance(defense, Plain):
        return defense
    if isinstance(defense, Mixture):
        return replace(defense, first=without_budget(defense.first), second=without_budget(defense.second))
    if isinstance(defense, Penalised):
        return replace(defense, inner=without_budget(defense.inner))
    if isinstance(defense, FreeTraining):
        return replace(defense, ball=Linf(0.0))
    return replace(defense, adversary=replace(defense.adversary, ball=Linf(0.0)))


def test_every_defense_of_the_library_is_tested():
    with_files_of_their_own = {AdversarialTraining, Benign, Growing, Replay, TeacherMatching}
    assert {*map(type, MADE)} | with_files_of_their_own == set(DEFENSES.values())
    assert isinstance(BatchLevel(), Loss)


@combined(CollapseAware)  # mines by itself
def test_without_a_budget_a_defense_is_plain_training(defense, loss):
    embedder = linear()
    found = step(without_budget(defense), embedder, loss)
    expected = step(Plain(), embedder, loss)
    gradients = [torch.autograd.grad(s.loss, list(embedder.parameters()))[0] for s in (found, expected)]
    offset = 1e-5 if isinstance(defense, ShiftSuppression) else 1e-12  # pairs that coincide are 1e-6 sqrt(d) apart
    torch.testing.assert_close(found.loss, expected.loss, atol=offset, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=0)


@combined(Plain, FreeTraining, AnchoredShiftTraining, TripletCollapse, StoppedMinMax, CollapseAware)
def test_a_budget_makes_the_loss_larger(defense, loss):
    """Left out are those whose inner problem does not go after the loss."""
    embedder = linear()
    plain, hard = (float(step(d, embedder, loss).loss.detach()) for d in (without_budget(defense), defense))
    assert hard > plain


@combined()
def test_the_inner_problem_gives_weights_no_gradient(defense, loss):
    embedder = network()
    taken = step(defense, embedder, loss)
    assert all(p.grad is None for p in embedder.parameters())
    taken.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in embedder.parameters())
    assert any(float(p.grad.abs().sum()) > 0 for p in embedder.parameters())


OUTER = {  # rows of each forward pass in training mode, for 4 pairs; the others embed 4 triplets at once
    ShiftTraining: [8],
    ShiftSuppression: [8, 8],
    AntiCollapse: [8, 4],
    AdaptedAntiCollapse: [8, 4],
    Mixture: [8, 4],
    Penalised: [8, 4],
}


@every(Plain)
def test_modes_and_statistics_change_by_the_outer_forward_passes_alone(defense):
    """Batch statistics are counted: the number and order of these passes is part of each method."""
    embedder = network()
    embedder.layers[4].eval()
    modes = [m.training for m in embedder.modules()]
    seen = []
    embedder.layers[1].register_forward_hook(lambda m, args, out: seen.append((m.training, len(args[0]))))
    step(defense, embedder, Triplet())
    assert [m.training for m in embedder.modules()] == modes
    outer = [size for training, size in seen if training]
    assert outer == OUTER.get(type(defense), [12])
    assert int(embedder.layers[1].num_batches_tracked) == len(outer)
    inner = 0 if isinstance(defense, FreeTraining) else ADVERSARY.search.steps
    assert len(seen) - len(outer) == 1 + inner  # one clean pass and the inner problem


@every(Plain)
def test_the_inner_problem_alone_leaves_no_trace(defense):
    embedder = network().eval()
    check = unchanged(embedder)
    step(defense, embedder, Triplet())
    check()


@every()
def test_equal_draws_give_equal_steps(defense):
    embedder = linear()
    first, again = (step(defense, embedder, Triplet()).loss for _ in range(2))
    assert torch.equal(first, again)


@every()
def test_what_was_remembered_is_handed_on(defense):
    memory = {"x": torch.ones(1)}
    given = batch()
    taken = defense(linear(), Triplet(), given, memory=memory, progress=0.0, draws=Draws(0), mean=lambda t: t)
    taken.loss.backward()
    kept = taken.after_backward() if taken.after_backward else taken.memory
    assert kept["x"] is memory["x"]
    assert memory == {"x": memory["x"]}
    assert taken.again == isinstance(defense, FreeTraining)


@every()
def test_what_the_loss_saw_is_told(defense):
    """The embeddings in `Step.z` give the loss again, and belong to the labels beside them."""
    given, loss = batch(), Triplet(margin=1.0)
    taken = step(defense, linear(), loss, given)
    if taken.z.ndim == 3:
        again = loss.on_triplets(taken.z)
        assert taken.labels.tolist() == [0, 1, 2, 3]
    else:
        again = loss(taken.z, taken.labels, draws=Draws(0), index=given.index)
        assert torch.equal(taken.labels, given.labels)
    extra = taken.logs["shift"] if isinstance(defense, ShiftSuppression) else 0.0
    torch.testing.assert_close(taken.loss - extra, again)


@every()
def test_triplets_of_the_data_are_used(defense):
    class Refusing:
        def __call__(self, z, labels, distance, *, draws, index):
            raise AssertionError("mined although the data fixes the triplets")

    triplets = Triplets(torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([2, 7]))
    embedder, loss, given = linear(), Triplet(miner=Refusing()), batch(triplets=triplets)
    found = step(without_budget(defense), embedder, loss, given).loss
    torch.testing.assert_close(
        found, loss.on_triplets(torch.stack(triplets.of(embedder(given.images)), dim=1)), atol=1e-5, rtol=0
    )


def test_anti_collapse_moves_positives_and_negatives_together_and_no_anchor():
    embedder, given = linear(), batch()
    seen = []
    embedder.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    triplets = mined_on_clean(AntiCollapse(ADVERSARY), embedder, Triplet(), given, Draws(0)).triplets
    seen.clear()
    step(AntiCollapse(ADVERSARY), embedder, Triplet(), given)
    pairs, anchors = seen[-2].unflatten(0, (4, 2)), seen[-1]
    assert torch.equal(anchors, given.images[triplets.anchor])
    clean = torch.stack([given.images[triplets.positive], given.images[triplets.negative]], dim=1)
    assert 0.01 < float((pairs - clean).abs().max()) <= 0.05 + 1e-12

    def gap(x):
        z = clean_embeddings(embedder, x.flatten(0, 1)).unflatten(0, (4, 2))
        return Spherical().pairs(z[:, 0], z[:, 1])

    assert bool((gap(pairs) < gap(clean)).all())


def test_shift_training_moves_every_embedding_away():
    embedder, given = linear(), batch()
    seen = []
    embedder.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    step(ShiftTraining(ADVERSARY), embedder, Triplet(), given)
    clean, shifted = (clean_embeddings(embedder, x) for x in (given.images, seen[-1]))
    assert float((seen[-1] - given.images).abs().max()) <= 0.05 + 1e-12
    assert bool((Spherical().pairs(shifted, clean) > 0.02).all())


def test_clean_embeddings_are_constants_of_evaluation_mode():
    embedder = network()
    z = clean_embeddings(embedder, batch().images)
    assert not z.requires_grad
    with frozen(embedder):
        assert torch.equal(z, embedder(batch().images).detach())


def test_anti_collapse_refuses_a_loss_without_triplets():
    message = (
        r"^AntiCollapse needs a loss defined on triplets, got BatchLevel\. Use Triplet, Contrastive, Margin or Snr, "
        r"or a batch-level defense such as ShiftTraining\.$"
    )
    with pytest.raises(ValueError, match=message):
        AntiCollapse(ADVERSARY).check(BatchLevel())
    with pytest.raises(ValueError, match=message):
        step(AntiCollapse(ADVERSARY), linear(), BatchLevel())


def test_batch_level_defenses_train_any_loss():
    for defense in (Plain(), ShiftTraining(ADVERSARY)):
        defense.check(BatchLevel())
        assert float(step(defense, linear(), BatchLevel()).loss.detach()) > 0
    AntiCollapse(ADVERSARY).check(Triplet())


def small():
    """A two-layer network with reproducible weights."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Layers(8, nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).double()


def trained(defense, steps=120):
    """A small network after some steps on pairs of the blobs, and the losses on the way."""
    embedder = small()
    images, labels = blobs(spread=0.08)
    optimiser = torch.optim.Adam(embedder.parameters(), lr=3e-3)
    g, values, memory = generator(5), [], {}
    for i in range(steps):
        classes = torch.arange(5).repeat_interleave(2)
        rows = classes * 12 + torch.randint(12, (10,), generator=g)
        again = True
        while again:
            taken = step(
                defense, embedder, Triplet(), Batch(images[rows], labels[rows], rows), Draws(0).under(i), memory
            )
            optimiser.zero_grad()
            taken.loss.backward()
            memory, again = taken.after_backward() if taken.after_backward else taken.memory, taken.again
            optimiser.step()
        values.append(float(taken.loss.detach()))
    return embedder, values


@every()
def test_a_few_steps_lower_the_loss(defense):
    if isinstance(defense, StoppedMinMax):  # its adversary grows as the loss falls: an easier task for the same loss
        defense = replace(defense, adversary=replace(ADVERSARY, ball=Linf(0.01)))
    _, values = trained(defense, 60)
    assert sum(values[-10:]) < 0.7 * sum(values[:10])


def robust_recall(embedder, eps=0.12):
    images, labels = blobs(spread=0.08)
    metric, scene = scene_of(embedder, Spherical(), images, labels)
    attack = Attack(EmbeddingShift(), Adversary(Linf(eps), Pgd(8, eps / 3)))
    return float(attack(metric, scene, images, draws=Draws(0), index=torch.arange(60)).after["recall@1"].mean())


@cache
def undefended():
    return robust_recall(trained(Plain())[0])


@every(Plain, FreeTraining, Mixture, Penalised)
def test_a_defended_network_keeps_more_of_its_recall(defense):
    strong = replace(defense, adversary=Adversary(Linf(0.12), Pgd(4, 0.05)))
    assert robust_recall(trained(strong)[0]) > undefended() + 0.05


def test_the_published_shift_is_another_one_for_raw_embeddings_alone():
    for distance, same in ((Spherical(), True), (Cosine(), True), (Euclidean(), False)):
        ours, published = (
            step(ShiftSuppression(ADVERSARY, as_published=p), linear(), Triplet(distance)) for p in (False, True)
        )
        assert (abs(ours.logs["shift"] - published.logs["shift"]) < 1e-9) == same


def test_adapted_act_chooses_by_the_margin_whom_to_move():
    embedder, given = linear(), batch()
    z = clean_embeddings(embedder, given.images)
    triplets = mined_on_clean(AntiCollapse(ADVERSARY), embedder, Contrastive(), given, Draws(0)).triplets
    before = torch.stack(triplets.of(z), dim=1)
    gaps = Spherical().pairs(before[:, 0], before[:, 2])
    loss = Contrastive(margin=float(gaps.median()) + 1e-9)
    inside = gaps < loss.margin
    assert 0 < int(inside.sum()) < len(inside)
    after = step(AdaptedAntiCollapse(ADVERSARY), embedder, loss, given).z
    moved = (after - before).norm(dim=2) > 1e-9
    assert torch.equal(moved[:, 0], ~inside)
    assert torch.equal(moved[:, 2], inside)
    assert bool(moved[:, 1].all())
    apart = Spherical().pairs(after[:, 0], after[:, 1]) > Spherical().pairs(before[:, 0], before[:, 1])
    assert bool(apart[~inside].all())


def test_adapted_act_refuses_losses_it_does_not_know():
    with pytest.raises(ValueError, match=r"Triplet and Contrastive ask of a triplet, got BatchLevel"):
        AdaptedAntiCollapse(ADVERSARY).check(BatchLevel())
    with pytest.raises(ValueError, match="exists on the sphere alone, got Cosine"):
        AdaptedAntiCollapse(ADVERSARY, as_published=True).check(Triplet(Cosine()))
