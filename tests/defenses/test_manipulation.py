"""Hardness manipulation: sources, destinations, objectives, roles and the structure term."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import Constant, Destination, Gradual, HardnessManipulation, MinMax, Plain, Sampled
from robustdml.defenses.defense import clean_embeddings
from robustdml.distance import Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.energies import hardness, manipulation, members
from robustdml.losses import Contrastive, MultiSimilarity, Triplet
from robustdml.mining import DistanceWeighted, Hardest, Random, RandomTriplet, SemiHard, SoftHard
from robustdml.types import Batch, Triplets
from tests.toys import blobs, linear, network

ADVERSARY = Adversary(Linf(0.05), Pgd(6, 0.01))
MINERS = [Random(), SemiHard(), SoftHard(), DistanceWeighted(), Hardest()]
FIXED = Triplets(torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5, 7]), torch.tensor([2, 5, 0, 1]))


class Given:
    """A miner that finds what it is told."""

    def __init__(self, triplets=FIXED):
        self.triplets = triplets

    def __call__(self, z, labels, distance, *, draws, index):
        return self.triplets


def batch():
    images, labels = blobs(4, 2)
    return Batch(images, labels, torch.arange(8))


def manipulating(**choices):
    return HardnessManipulation(ADVERSARY, **({"source": Given(), "destination": Constant(-0.05)} | choices))


def step(defense, embedder=None, loss=None, memory=None, progress=0.0, mean=lambda t: t):
    return defense(
        linear() if embedder is None else embedder, loss or Triplet(), batch(), memory=memory or {}, progress=progress,
        draws=Draws(0), mean=mean,
    )  # fmt: skip


def of(z):
    return hardness(Spherical(), *z.unbind(dim=1))


def clean(embedder=None):
    z = clean_embeddings(linear() if embedder is None else embedder, batch().images)
    return torch.stack(FIXED.of(z), dim=1)


def test_triplets_are_raised_up_to_the_destination_and_those_beyond_it_stay():
    before = of(clean())
    middle = float(before.median()) + 1e-6
    taken = step(manipulating(destination=Constant(middle)))
    after, beyond = of(taken.z), before >= middle
    assert 0 < int(beyond.sum()) < len(beyond)
    torch.testing.assert_close(after[beyond], before[beyond])
    assert bool((after[~beyond] > before[~beyond]).all())
    assert taken.logs["destination"] == pytest.approx(middle)


def test_the_threshold_objective_is_ascent_on_hardness_with_a_mask_of_its_own():
    """Section 2.8: sign(-dJ) is sign(dH) while H is below its destination, and 0 from then on."""
    embedder, wanted = linear(), -0.02
    images = torch.stack(FIXED.of(batch().images), dim=1)
    x = images.clone()
    for _ in range(ADVERSARY.search.steps):
        moving = x.clone().requires_grad_()
        h = of(embedder(moving.flatten(0, 1)).unflatten(0, (4, 3)))
        (slope,) = torch.autograd.grad(h.sum(), moving)
        x = x + 0.01 * slope.sign() * (h < wanted)[:, None, None, None, None]
        x = torch.minimum(torch.maximum(x, images - 0.05), images + 0.05).clamp(0, 1).detach()
    expected = embedder(x.flatten(0, 1)).unflatten(0, (4, 3))
    torch.testing.assert_close(step(manipulating(destination=Constant(wanted)), embedder).z, expected)


def test_a_destination_out_of_reach_is_min_max():
    embedder = linear()
    expected = step(MinMax(ADVERSARY), embedder, Triplet(miner=Given()))
    defense = manipulating(destination=Constant(2.0))
    with pytest.warns(UserWarning, match="no farther than positives"):
        defense.check(Triplet())
    torch.testing.assert_close(step(defense, embedder).z, expected.z)


def test_the_l2_objective_makes_hard_triplets_easier():
    before = of(clean())
    after = of(step(manipulating(destination=Constant(-1.5), objective="L2")).z)
    assert bool((after < before).all())
    torch.testing.assert_close(of(step(manipulating(destination=Constant(-1.5))).z), before)


def test_the_kl_objective_is_the_gradient_form_of_the_divergence():
    z = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([-0.1, 0.2, -0.3, 0.1], dtype=torch.float64)
    found = manipulation(Spherical(), wanted, "KL", members(z, [0, 1, 2]))(z, torch.arange(4), 0)
    h = [float(v) for v in of(z)]
    q, s = ([v / sum(map(abs, row)) for v in row] for row in (wanted.tolist(), h))
    assert found.tolist() == pytest.approx([-a * b for a, b in zip(q, s)])


@pytest.mark.parametrize("roles", ["apn", "ap", "an", "pn", "a", "p", "n"])
def test_only_the_roles_that_are_named_move(roles):
    embedder = linear()
    z, before = step(manipulating(roles=roles, destination=Constant(-0.001)), embedder).z, clean(embedder)
    moved = ((z - before).norm(dim=2) > 1e-9).any(dim=0)
    assert moved.tolist() == [role in roles for role in "apn"]
    assert bool((of(z) >= of(before)).all())


@pytest.mark.parametrize(("source", "destination"), list(product(MINERS, MINERS)), ids=lambda m: type(m).__name__)
def test_every_pair_of_miners_trains(source, destination):
    embedder = network()
    taken = step(HardnessManipulation(ADVERSARY, source, Sampled(destination)), embedder)
    taken.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in embedder.parameters())


def test_source_and_destination_are_drawn_independently():
    z, given = clean_embeddings(linear(), batch().images), batch()
    source = Random()(z, given.labels, Spherical(), draws=Draws(0), index=given.index)
    wanted = Sampled(Random())(z, given.labels, source, Spherical(), previous=1.0, draws=Draws(0), index=given.index)
    assert not torch.equal(wanted, hardness(Spherical(), *source.of(z)))


def test_a_sampled_destination_is_the_hardness_of_another_triplet():
    other = Triplets(FIXED.anchor, FIXED.positive, torch.tensor([4, 0, 6, 3]))
    z = clean_embeddings(linear(), batch().images)

    def wanted(destination, previous):
        return destination(
            z, batch().labels, FIXED, Spherical(), previous=previous, draws=Draws(0), index=batch().index
        )

    expected = hardness(Spherical(), *other.of(z))
    torch.testing.assert_close(wanted(Sampled(Given(other)), 0.05), expected)
    raised = Sampled(Given(other), raised=0.1)
    for previous, share in ((0.0, 1.0), (0.05, 0.75), (0.2, 0.0), (3.0, 0.0)):
        torch.testing.assert_close(wanted(raised, previous), expected + 0.1 * share)
    assert raised.follows_loss
    assert not Sampled().follows_loss


@pytest.mark.parametrize(
    ("destination", "previous", "expected"),
    [
        (Gradual(), 2.0, -0.2), (Gradual(), 0.2, -0.2), (Gradual(), 0.05, -0.05), (Gradual(), 0.0, 0.0),
        (Gradual(), -1.0, 0.0), (Gradual(power=2.0), 0.1, -0.05), (Gradual(power=0.5), 0.05, -0.1),
        (Gradual(ceiling=2.2), 0.22, -0.02), (Gradual(margin=0.6), 0.1, -0.3), (Constant(-0.07), 0.1, -0.07),
    ],
)  # fmt: skip
def test_destinations_by_the_loss_before(destination, previous, expected):
    taken = step(manipulating(destination=destination), memory={"previous": torch.tensor(previous)}, progress=0.5)
    assert taken.logs["destination"] == pytest.approx(expected, abs=1e-7)


def test_the_loss_before_the_structure_term_is_remembered():
    taken = step(manipulating(structure=0.5), mean=lambda t: t + 5)
    value = Triplet().on_triplets(taken.z)
    torch.testing.assert_close(taken.memory["previous"], value.detach() + 5)
    assert float(taken.loss.detach()) > float(value.detach())
    own = step(manipulating(averaged=False), mean=lambda t: t + 5)
    torch.testing.assert_close(own.memory["previous"], own.loss.detach())
    assert step(manipulating(destination=Gradual(), first_loss=0.04)).logs["destination"] == pytest.approx(-0.04)


def test_the_structure_term_compares_the_moved_anchor_with_the_clean_pair():
    embedder = linear()
    plain, kept = (step(manipulating(structure=s, structure_margin=m), embedder) for s, m in ((0.0, 0.0), (0.7, 0.1)))
    torch.testing.assert_close(kept.z, plain.z)
    a, p, _ = clean(embedder).unbind(dim=1)
    term = (Spherical().pairs(a, plain.z[:, 0]) - Spherical().pairs(a, p) + 0.1).clamp_min(0).mean()
    torch.testing.assert_close(kept.loss, plain.loss + 0.7 * term)
    assert kept.logs["structure"] == pytest.approx(float(term.detach()))


def test_the_clean_pair_passes_first_in_training_mode():
    embedder, seen = network(), []
    embedder.layers[1].register_forward_hook(lambda m, args, out: seen.append((m.training, len(args[0]))))
    step(manipulating(structure=0.5), embedder)
    assert [size for training, size in seen if training] == [8, 12]


def test_without_any_movement_it_is_plain_training():
    embedder, loss = linear(), Triplet(miner=Given())
    still = replace(manipulating(), adversary=replace(ADVERSARY, ball=Linf(0.0)))
    torch.testing.assert_close(step(still, embedder).loss, step(Plain(), embedder, loss).loss)


def test_without_a_source_the_miner_of_the_loss_is_asked():
    embedder = linear()
    own = step(manipulating(source=None), embedder, Triplet(miner=Given()))
    torch.testing.assert_close(own.z, step(manipulating(), embedder, Triplet(miner=Hardest())).z)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="needs a loss defined on triplets, got MultiSimilarity"):
        manipulating().check(MultiSimilarity())
    with pytest.raises(ValueError, match="needs the triplet loss: its structure term has a margin"):
        manipulating(structure=0.5).check(Contrastive())
    with pytest.raises(ValueError, match=r"cannot raise hardness to 2\.5: Spherical allows 2\.0"):
        manipulating(destination=Constant(2.5)).check(Triplet())
    with pytest.warns(UserWarning, match="no farther than positives"):
        manipulating(destination=Constant(2.5)).check(Triplet(Euclidean()))
    with pytest.warns(UserWarning, match=r"every triplet is harder than -2\.0 already"):
        manipulating(destination=Constant(-2.0)).check(Triplet())
    with pytest.warns(UserWarning, match="mostly rounding noise"):
        manipulating(destination=Gradual(), objective="KL").check(Triplet())
    with pytest.raises(ValueError, match="RandomTriplet finds triplets of other anchors"):
        step(manipulating(destination=Sampled(RandomTriplet())))
    for wrong in (lambda: Gradual(margin=0.0), lambda: Gradual(power=-1.0), lambda: Sampled(ceiling=float("inf"))):
        with pytest.raises(ValueError, match="needs a finite"):
            wrong()
    with pytest.raises(ValueError, match="finite hardness, got nan"):
        Constant(float("nan"))
    with pytest.raises(ValueError, match="finite raised >= 0, got nan"):
        Sampled(raised=float("nan"))
    with pytest.raises(ValueError, match=r"cannot raise hardness to 3\.0: Spherical allows 2\.0"):
        manipulating(destination=Sampled(raised=3.0)).check(Triplet())
    with pytest.raises(ValueError, match=r"numbers >= 0, got structure -1\.0, first_loss nan"):
        manipulating(structure=-1.0, first_loss=float("nan"))
    with pytest.warns(UserWarning, match=r"begins at hardness -0\.2, and the triplet loss has margin 0\.8"):
        manipulating(destination=Gradual()).check(Triplet(margin=0.8))
    with pytest.warns(UserWarning, match="'pn' none is the anchor: the term is zero"):
        manipulating(structure=0.5, roles="pn").check(Triplet())


def test_a_triplet_that_is_its_own_destination_does_not_move():
    wanted = of(clean())
    for rounding in (-5e-7, 0.0, 5e-7):
        z = clean().requires_grad_()
        energy = manipulation(Spherical(), wanted + rounding, "ET", members(clean(), [0, 1, 2]))
        (gradient,) = torch.autograd.grad(energy(z, torch.arange(4), 0).sum(), z)
        assert not bool(gradient.any())


def test_a_loss_that_was_no_number_stops_the_gradual_adversary():
    with pytest.raises(ValueError, match=r"the loss of the step before is nan.*--clip 1\.0"):
        step(manipulating(destination=Gradual()), memory={"previous": torch.tensor(torch.nan)})


def test_a_missing_memory_is_said():
    with pytest.warns(UserWarning, match="holds no loss of the step before, so Gradual begins with first_loss = 2"):
        step(manipulating(destination=Gradual()), progress=0.5)
    step(manipulating(), progress=0.5)  # a constant needs none
    step(manipulating(destination=Gradual()))  # nor does the first step
    late = manipulating(destination=Gradual())
    step(late, memory=late.begin(linear()), progress=0.5)  # nor the first of a defense that had to wait for its turn


def test_destinations_are_destinations():
    for destination in (Sampled(), Constant(), Gradual()):
        assert isinstance(destination, Destination)
