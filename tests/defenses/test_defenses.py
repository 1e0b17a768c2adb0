"""Training steps of defenses."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks import Attack
from robustdml.attacks.goals import EmbeddingShift
from robustdml.defenses import DEFENSES, AntiCollapse, Plain, ShiftTraining
from robustdml.defenses.defense import clean_embeddings, mined_on_clean
from robustdml.distance import Cosine, Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses import Contrastive, Loss, Triplet
from robustdml.mining import Hardest
from robustdml.models.embedder import Layers, frozen
from robustdml.types import Batch, Triplets
from tests.toys import blobs, generator, linear, network, scene_of, unchanged

ADVERSARY = Adversary(Linf(0.05), Pgd(3, 0.02))
MADE = {Plain: Plain(), ShiftTraining: ShiftTraining(ADVERSARY), AntiCollapse: AntiCollapse(ADVERSARY)}
EVERY = pytest.mark.parametrize("defense", MADE.values(), ids=lambda d: type(d).__name__)
INNER = pytest.mark.parametrize("defense", [d for d in MADE.values() if d != Plain()], ids=lambda d: type(d).__name__)
LOSSES = pytest.mark.parametrize("loss", [Triplet(margin=1.0), Triplet(Cosine(), Hardest()), Contrastive()], ids=repr)


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


def step(defense, embedder, loss, given=None, draws=None):
    return defense(
        embedder, loss, batch() if given is None else given, memory={}, progress=0.5,
        draws=Draws(0) if draws is None else draws, mean=lambda t: t,
    )  # fmt: skip


def without_budget(defense):
    return defense if defense == Plain() else replace(defense, adversary=replace(ADVERSARY, ball=Linf(0.0)))


def test_every_defense_of_the_library_is_tested():
    assert set(MADE) == set(DEFENSES.values())
    assert isinstance(BatchLevel(), Loss)


@EVERY
@LOSSES
def test_without_a_budget_a_defense_is_plain_training(defense, loss):
    embedder = linear()
    found = step(without_budget(defense), embedder, loss)
    expected = step(Plain(), embedder, loss)
    gradients = [torch.autograd.grad(s.loss, list(embedder.parameters()))[0] for s in (found, expected)]
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=0)


@INNER
@LOSSES
def test_a_budget_makes_the_loss_larger(defense, loss):
    embedder = linear()
    plain, hard = (float(step(d, embedder, loss).loss.detach()) for d in (without_budget(defense), defense))
    assert hard > plain


@EVERY
@LOSSES
def test_the_inner_problem_gives_weights_no_gradient(defense, loss):
    embedder = network()
    taken = step(defense, embedder, loss)
    assert all(p.grad is None for p in embedder.parameters())
    taken.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in embedder.parameters())
    assert any(float(p.grad.abs().sum()) > 0 for p in embedder.parameters())


@INNER
def test_modes_and_statistics_change_by_the_outer_forward_passes_alone(defense):
    """Batch statistics are counted: one outer pass for batch-level defenses, pairs and then anchors for tuples."""
    embedder = network()
    embedder.layers[4].eval()
    modes = [m.training for m in embedder.modules()]
    seen = []
    embedder.layers[1].register_forward_hook(lambda m, args, out: seen.append((m.training, len(args[0]))))
    step(defense, embedder, Triplet())
    assert [m.training for m in embedder.modules()] == modes
    outer = [size for training, size in seen if training]
    assert outer == ([8, 4] if isinstance(defense, AntiCollapse) else [8])
    assert int(embedder.layers[1].num_batches_tracked) == len(outer)
    assert len(seen) - len(outer) == 1 + ADVERSARY.search.steps  # one clean pass and the inner problem


@INNER
def test_the_inner_problem_alone_leaves_no_trace(defense):
    embedder = network().eval()
    check = unchanged(embedder)
    step(defense, embedder, Triplet())
    check()


@EVERY
def test_equal_draws_give_equal_steps(defense):
    embedder = linear()
    first, again = (step(defense, embedder, Triplet()).loss for _ in range(2))
    assert torch.equal(first, again)


@EVERY
def test_what_was_remembered_is_handed_on(defense):
    memory = {"x": torch.ones(1)}
    given = batch()
    taken = defense(linear(), Triplet(), given, memory=memory, progress=0.0, draws=Draws(0), mean=lambda t: t)
    assert taken.memory == memory
    assert (taken.update, taken.again, taken.after_backward) == (None, False, None)


@EVERY
def test_triplets_of_the_data_are_used(defense):
    class Refusing:
        def __call__(self, z, labels, distance, *, draws, index):
            raise AssertionError("mined although the data fixes the triplets")

    triplets = Triplets(torch.tensor([0, 4]), torch.tensor([1, 5]), torch.tensor([2, 7]))
    embedder, loss, given = linear(), Triplet(miner=Refusing()), batch(triplets=triplets)
    found = step(without_budget(defense), embedder, loss, given).loss
    torch.testing.assert_close(found, loss.on_triplets(torch.stack(triplets.of(embedder(given.images)), dim=1)))


def test_anti_collapse_moves_positives_and_negatives_together_and_no_anchor():
    embedder, given = linear(), batch()
    seen = []
    embedder.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    triplets = mined_on_clean(AntiCollapse(ADVERSARY), embedder, Triplet(), given, Draws(0))
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
    g, values = generator(5), []
    for i in range(steps):
        classes = torch.arange(5).repeat_interleave(2)
        rows = classes * 12 + torch.randint(12, (10,), generator=g)
        taken = step(defense, embedder, Triplet(), Batch(images[rows], labels[rows], rows), Draws(0).under(i))
        optimiser.zero_grad()
        taken.loss.backward()
        optimiser.step()
        values.append(float(taken.loss.detach()))
    return embedder, values


@EVERY
def test_a_few_steps_lower_the_loss(defense):
    _, values = trained(defense, 60)
    assert sum(values[-10:]) < 0.7 * sum(values[:10])


def robust_recall(embedder, eps=0.12):
    images, labels = blobs(spread=0.08)
    metric, scene = scene_of(embedder, Spherical(), images, labels)
    attack = Attack(EmbeddingShift(), Adversary(Linf(eps), Pgd(8, eps / 3)))
    return float(attack(metric, scene, images, draws=Draws(0), index=torch.arange(60)).after["recall@1"].mean())


@INNER
def test_a_defended_network_keeps_more_of_its_recall(defense):
    strong = replace(defense, adversary=Adversary(Linf(0.12), Pgd(4, 0.05)))
    defended, plain = robust_recall(trained(strong)[0]), robust_recall(trained(Plain())[0])
    assert defended > plain + 0.05
