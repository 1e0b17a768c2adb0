"""Triplets of a batch: who may play which role, and how likely."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.distance import Cosine, Dot, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.mining import MINERS, DistanceWeighted, Hardest, Random, RandomTriplet, SemiHard, SoftHard, draw_one
from tests.toys import generator

PAIRED = [c for c in MINERS.values() if c is not RandomTriplet]
DISTANCES = [Spherical(), Cosine(), Dot()]
FEW_POINTS = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-1.0, 0.0, 0.0], [1e-3, 1.0, 0.1]])


def mined(miner, z, labels, distance=Spherical(), seed=0):  # noqa: B008 (frozen)
    return miner(z, labels, distance, draws=Draws(seed), index=torch.arange(len(labels)) + 100)


@st.composite
def batches(draw, paired=True, classes=4):
    """Embeddings with many exact duplicates, and labels: of pairs, or of any kind."""
    drawn = draw(st.lists(st.integers(0, classes - 1), min_size=2, max_size=8))
    labels = torch.tensor(drawn).repeat_interleave(2 if paired else 1)
    points = draw(st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels)))
    return FEW_POINTS[torch.tensor(points)], labels


def check_roles(t, labels):
    """Positive of the anchor's class and not the anchor; negative of another class, unless there is only one."""
    assert len(t.anchor) == len(t.positive) == len(t.negative)
    for rows in (t.anchor, t.positive, t.negative):
        assert int(rows.min()) >= 0
        assert int(rows.max()) < len(labels)
    assert torch.equal(labels[t.positive], labels[t.anchor])
    assert bool((t.positive != t.anchor).all())
    if len(labels.unique()) > 1:
        assert bool((labels[t.negative] != labels[t.anchor]).all())


@pytest.mark.parametrize("miner", PAIRED, ids=lambda c: c.__name__)
@pytest.mark.parametrize("distance", DISTANCES, ids=repr)
@given(batch=batches(), seed=st.integers(0, 10))
def test_roles_have_the_right_classes_whatever_coincides(miner, distance, batch, seed):
    z, labels = batch
    if miner is DistanceWeighted and distance == Dot():
        z = z / z.norm(dim=1).max()
    t = mined(miner(), z, labels, distance, seed)
    assert torch.equal(t.anchor, torch.arange(0, len(labels), 2))
    check_roles(t, labels)


@pytest.mark.parametrize("miner", PAIRED, ids=lambda c: c.__name__)
def test_a_batch_of_one_class_still_gives_triplets(miner):
    labels = torch.zeros(6, dtype=torch.long)
    t = mined(miner(), torch.randn(6, 3, generator=generator()), labels)
    check_roles(t, labels)
    assert torch.equal(t.positive, t.anchor + 1)


@pytest.mark.parametrize("miner", PAIRED, ids=lambda c: c.__name__)
def test_a_collapsed_batch_is_mined_like_any_other(miner):
    labels = torch.arange(4).repeat_interleave(2)
    check_roles(mined(miner(), torch.zeros(8, 3), labels), labels)
    check_roles(mined(miner(), torch.ones(8, 3), labels), labels)


@pytest.mark.parametrize("miner", MINERS.values(), ids=lambda c: c.__name__)
def test_mining_is_repeatable_and_leaves_no_graph(miner):
    z = torch.randn(12, 4, generator=generator()).requires_grad_()
    labels = torch.arange(6).repeat_interleave(2)
    first, again = mined(miner(), z, labels), mined(miner(), z, labels)
    for role in ("anchor", "positive", "negative"):
        assert torch.equal(getattr(first, role), getattr(again, role))
    assert z.grad is None


@pytest.mark.parametrize("miner", [Random, SemiHard, DistanceWeighted], ids=lambda c: c.__name__)
def test_other_draws_give_other_negatives(miner):
    z = torch.randn(32, 8, generator=generator())
    labels = torch.arange(16).repeat_interleave(2)
    assert not torch.equal(mined(miner(), z, labels).negative, mined(miner(), z, labels, seed=1).negative)


def test_random_negatives_are_uniform_over_the_other_classes():
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2])
    z = torch.zeros(8, 2)
    found = torch.stack([mined(Random(), z, labels, seed=s).negative[0] for s in range(1200)])
    counts = found.bincount(minlength=8)
    assert counts[:2].tolist() == [0, 0]
    assert bool(((counts[2:] - 200).abs() < 5 * math.sqrt(200)).all())


@pytest.mark.parametrize("distance", [Spherical(), Cosine(), Euclidean(), Dot()], ids=repr)
def test_semihard_negatives_are_those_of_the_definition(distance):
    z = torch.randn(24, 3, generator=generator(4), dtype=torch.float64)
    labels = torch.arange(4).repeat_interleave(2).repeat(3)
    margin = 0.4
    d = distance.matrix(z[::2], z)
    found = SemiHard(margin).negatives(d, labels)
    with_candidates = 0
    for t, a in enumerate(range(0, 24, 2)):
        others = [n for n in range(24) if labels[n] != labels[a]]
        wanted = [n for n in others if d[t, a + 1] < d[t, n] < d[t, a + 1] + margin]
        with_candidates += bool(wanted)
        assert found[t].nonzero()[:, 0].tolist() == (wanted or others)
    assert with_candidates > 3


@pytest.mark.parametrize("distance", [Spherical(), Cosine(), Euclidean(), Dot()], ids=repr)
def test_softhard_candidates_are_those_of_the_definition(distance):
    z = torch.randn(24, 3, generator=generator(4), dtype=torch.float64)
    labels = torch.arange(4).repeat_interleave(2).repeat(3)
    d = distance.matrix(z[::2], z)
    positives, negatives = SoftHard().candidates(d, labels)
    for t, a in enumerate(range(0, 24, 2)):
        same = [p for p in range(24) if labels[p] == labels[a] and p != a]
        others = [n for n in range(24) if labels[n] != labels[a]]
        hard = [p for p in same if d[t, p] > min(d[t, n] for n in others)]
        easy = [n for n in others if d[t, n] < max(d[t, p] for p in same)]
        assert positives[t].nonzero()[:, 0].tolist() == (hard or same)
        assert negatives[t].nonzero()[:, 0].tolist() == (easy or others)


def test_softhard_as_published_may_take_the_anchor_as_its_positive():
    labels = torch.tensor([0, 0, 1, 1])
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    published = [mined(SoftHard("as-published"), z, labels, seed=s).positive[0].item() for s in range(20)]
    assert set(published) == {0, 1}


@pytest.mark.parametrize("distance", [Spherical(), Cosine(), Euclidean(), Dot()], ids=repr)
def test_the_hardest_negative_is_the_nearest_row_of_another_class(distance):
    z = torch.randn(20, 3, generator=generator(2), dtype=torch.float64)
    labels = torch.arange(5).repeat_interleave(2).repeat(2)
    d = distance.matrix(z, z)
    t = mined(Hardest(), z, labels, distance)
    for a, n in zip(t.anchor.tolist(), t.negative.tolist()):
        assert float(d[a, n]) == min(float(d[a, m]) for m in range(20) if labels[m] != labels[a])


def literal_weights(d, allowed, dim, cutoff, farthest):
    """The density of Wu et al. row by row, normalised."""
    rows = []
    for t in range(len(d)):
        within = [n for n in range(d.shape[1]) if allowed[t][n] and d[t, n] <= farthest] or [
            n for n in range(d.shape[1]) if allowed[t][n]
        ]
        q = [0.0] * d.shape[1]
        for n in within:
            floored = min(max(float(d[t, n]), cutoff), 2 - 1e-6)
            q[n] = floored ** (2 - dim) * (1 - floored**2 / 4) ** (-(dim - 3) / 2)
        rows.append([value / sum(q) for value in q])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("cutoff", "farthest"), [(0.5, 1.4), (0.3, 1.0), (0.5, 2.0)])
def test_distance_weights_are_the_inverse_density_on_the_sphere(cutoff, farthest):
    labels = torch.arange(4).repeat_interleave(2).repeat(2)
    z = torch.randn(16, 5, generator=generator(3), dtype=torch.float64)
    d = Spherical().matrix(z[::2], z)
    expected = literal_weights(d, (labels[::2, None] != labels).tolist(), 5, cutoff, farthest)
    torch.testing.assert_close(
        DistanceWeighted(cutoff, farthest).weights(d, labels, 5), expected, atol=1e-12, rtol=1e-9
    )


def test_draws_are_proportional_to_their_weights():
    weights = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0], dtype=torch.float64)
    n = 10_000
    counts = draw_one("x", weights.expand(n, 6), Draws(0), torch.arange(n)).bincount(minlength=6)
    assert counts[weights == 0].tolist() == [0, 0, 0]
    assert bool(((counts - n * weights).abs() <= 5 * (n * weights).sqrt()).all())


def test_distance_weights_stay_finite_in_high_dimension():
    labels = torch.arange(4).repeat_interleave(2)
    d = torch.tensor([0.0, 0.01, 0.3, 0.7, 1.2, 1.3, 1.9, 2.0]).expand(4, 8)
    weights = DistanceWeighted().weights(d, labels, 2048)
    assert bool(torch.isfinite(weights).all())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))


def test_distance_weighting_refuses_embeddings_off_the_sphere():
    z, labels = 10 * torch.randn(8, 3, generator=generator()), torch.arange(4).repeat_interleave(2)
    with pytest.raises(ValueError, match=r"DistanceWeighted needs distances on the unit sphere, in \[0, 2\], and got "
                       r"one of \d.*Use Spherical\(\) or Cosine\(\) as the distance, or another miner"):  # fmt: skip
        mined(DistanceWeighted(), z, labels, Euclidean())


@given(batch=batches(paired=False), seed=st.integers(0, 10))
def test_random_triplets_need_no_pairs(batch, seed):
    z, labels = batch
    if len(labels.unique()) == 1:
        return
    t = mined(RandomTriplet(), z, labels, seed=seed)
    if len(labels.unique()) == len(labels):
        assert torch.equal(t.positive, t.anchor)
        assert torch.equal(t.anchor.sort().values, torch.arange(len(labels)))
        assert bool((t.negative != t.anchor).all())
    else:
        check_roles(t, labels)
    assert len(t.anchor) == len(labels)


def test_random_triplets_are_not_repeated_while_there_are_enough():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    population = RandomTriplet().population(labels)
    expected = [
        (a, p, n)
        for a in range(7)
        for p in range(7)
        for n in range(7)
        if a != p and labels[a] == labels[p] and labels[n] != labels[a]
    ]
    assert sorted(map(tuple, population.tolist())) == expected
    t = mined(RandomTriplet(), torch.zeros(7, 2), labels)
    assert len(set(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist()))) == 7


def test_random_triplets_of_a_single_class_are_refused():
    with pytest.raises(ValueError, match=r"RandomTriplet found no triplet in a batch of 4 rows\. Use a larger batch"):
        mined(RandomTriplet(), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
