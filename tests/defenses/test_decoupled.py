"""Defenses that move some roles of a triplet: the loss itself as the aim, and collapse-aware decoupling."""

import math

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Noise, Pgd
from robustdml.defenses import CollapseAware, MinMax, RoleAscent
from robustdml.defenses.defense import clean_embeddings
from robustdml.defenses.schedule import in_smaller_steps
from robustdml.distance import Spherical
from robustdml.draws import Draws
from robustdml.energies import anchor_flight, closer_half, collapseness, hardness, members, until_collapse
from robustdml.losses import Contrastive, Triplet
from robustdml.mining import SemiHard
from robustdml.types import Batch, Triplets
from tests.toys import blobs, linear

ADVERSARY = Adversary(Linf(0.05), Pgd(4, 0.02))
FIXED = Triplets(torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5, 7]), torch.tensor([2, 5, 0, 1]))


def batch(triplets=FIXED):
    images, labels = blobs(4, 2)
    return Batch(images, labels, torch.arange(8), triplets)


def step(defense, embedder, loss=None, memory=None, progress=1.0, given=None):
    return defense(
        embedder, loss or Triplet(), given or batch(), memory=memory or {}, progress=progress, draws=Draws(0),
        mean=lambda t: t,
    )  # fmt: skip


def clean(embedder):
    return torch.stack(FIXED.of(clean_embeddings(embedder, batch().images)), dim=1)


def distances(z):
    """Slowly: d(a, p) and d(a, n) of triplets."""
    return [[float(Spherical().pairs(t[0], t[role])) for t in z.detach()] for role in (1, 2)]


def literal_collapseness(z, sharpness):
    value = 0.0
    for sign, d in zip((1, -1), distances(z)):
        w = [math.exp(sharpness * (x - max(d))) for x in d]
        value += sign * sum(a * b for a, b in zip(w, d)) / sum(w)
    return value


def literal_half(d):
    return sum(sorted(d)[: len(d) // 2]) / (len(d) // 2)


@pytest.fixture
def z():
    return torch.randn(6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sharpness", [2.0, 9.5])
def test_collapseness_is_that_of_the_definition(z, sharpness):
    positive, negative = (Spherical().pairs(z[:, 0], z[:, role]) for role in (1, 2))
    assert float(collapseness(positive, negative, sharpness)) == pytest.approx(literal_collapseness(z, sharpness))
    assert float(closer_half(positive)) == pytest.approx(literal_half(distances(z)[0]))
    assert float(closer_half(positive[:1])) == pytest.approx(float(positive[0]))


def test_the_inner_problems_are_those_of_the_definition(z):
    before = z + 0.3 * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(4))
    unit = torch.arange(len(z))
    pulled = until_collapse(Spherical(), members(before, [1, 2]), 10.0)(z[:, 1:], unit, 0)
    mixed = torch.cat([before[:, :1], z[:, 1:]], dim=1)
    assert float(pulled.sum()) == pytest.approx(max(0, -literal_collapseness(mixed, 10.0)))
    fled = anchor_flight(Spherical(), members(before, [0]), 10.0, before)(z[:, :1], unit, 0)
    mixed = torch.cat([z[:, :1], before[:, 1:]], dim=1)
    c, reach = literal_collapseness(mixed, 10.0), literal_half(distances(before)[1])
    gone = sum(float(Spherical().pairs(u[0], v[0])) for u, v in zip(z, before)) / len(z)
    assert float(fled.sum()) == pytest.approx(max(0, c) + math.exp(-max(0, -c)) * max(0, reach - gone))


@pytest.mark.parametrize("setting", [{"sharpness": float("nan")}, {"margin": -1.0}, {"gap": float("inf")}])
def test_settings_that_would_switch_the_adversary_off_are_refused(setting):
    with pytest.raises(ValueError, match="CollapseAware needs finite numbers >= 0"):
        CollapseAware(Adversary(Linf(0.1), Pgd(2, 0.1)), **setting)


def test_steps_take_turns_between_pairs_and_anchors():
    embedder, memory, moved = linear(), {}, []
    before = clean(embedder)
    for _ in range(3):
        taken = step(CollapseAware(ADVERSARY), embedder, memory=memory)
        memory = taken.memory
        moved.append(((taken.z - before).norm(dim=2) > 1e-9).any(dim=0).tolist())
    assert moved == [[False, True, True], [True, False, False], [False, True, True]]


def test_pairs_are_pulled_no_further_than_collapse():
    embedder, before = linear(), literal_collapseness(clean(linear()), 10.0)
    weak, strong = (step(CollapseAware(Adversary(Linf(eps), Pgd(60, eps / 20))), embedder).z for eps in (0.05, 0.6))
    assert before < literal_collapseness(weak, 10.0) < 0
    assert literal_collapseness(strong, 10.0) == pytest.approx(0, abs=0.1)


def test_odd_steps_have_a_second_term():
    embedder = linear()
    even, odd = (step(CollapseAware(ADVERSARY, gap=0.5), embedder, memory={"odd": torch.tensor(o)}) for o in (0.0, 1.0))
    torch.testing.assert_close(even.loss, Triplet().on_triplets(even.z))
    near, far = map(literal_half, distances(odd.z))
    expected = float(Triplet().on_triplets(odd.z).detach()) + 0.5 * max(0, near - far + 0.5)
    assert float(odd.loss.detach()) == pytest.approx(expected)


def test_the_adversary_and_the_margin_follow_the_training():
    embedder, free = linear(), batch(None)
    assert torch.equal(
        step(CollapseAware(ADVERSARY), embedder, progress=0.0).z.detach(), clean(embedder)
    )  # the ramp begins at 0
    assert in_smaller_steps(ADVERSARY, 0.25).search == Pgd(4, 0.005)
    z = clean_embeddings(embedder, free.images)
    for progress, margin in ((0.5, 0.2 * 0.75**2), (1.0, 0.05)):
        found = SemiHard(margin)(z, free.labels, Spherical(), draws=Draws(0), index=free.index)
        still = CollapseAware(Adversary(Linf(0.0), Pgd(1, 0.0)))
        taken = step(still, embedder, progress=progress, given=free)
        torch.testing.assert_close(taken.z.detach(), torch.stack(found.of(z), dim=1))


def test_the_loss_itself_is_raised_by_the_named_role():
    embedder, loss = linear(), Triplet(margin=1.0)
    before = clean(embedder)
    for role in "apn":
        z = step(RoleAscent(ADVERSARY, role), embedder, loss).z
        assert ((z - before).norm(dim=2) > 1e-9).any(dim=0).tolist() == [r == role for r in "apn"]
        assert float(loss.on_triplets(z).detach()) > float(loss.on_triplets(before))
    everyone = step(RoleAscent(ADVERSARY, "apn"), embedder, loss).z  # all are inside the margin: ascent on hardness
    torch.testing.assert_close(everyone, step(MinMax(ADVERSARY), embedder, loss).z)


def test_triplets_that_cost_nothing_stay():
    embedder, loss = linear(), Triplet(margin=0.0)
    before = clean(embedder)
    z = step(RoleAscent(ADVERSARY, "apn"), embedder, loss).z
    idle = hardness(Spherical(), *before.unbind(dim=1)) < 0
    assert bool(idle.any())
    torch.testing.assert_close(z[idle].detach(), before[idle])


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="CollapseAware needs the triplet loss: its second term"):
        CollapseAware(ADVERSARY).check(Contrastive())
    with pytest.raises(ValueError, match="the size of inner steps grows, and Noise has none"):
        CollapseAware(Adversary(Linf(0.1), Noise())).check(Triplet())
    with pytest.raises(ValueError, match="a single one takes the whole radius from the start"):
        CollapseAware(Adversary(Linf(0.1), Pgd(1, 0.1))).check(Triplet())
