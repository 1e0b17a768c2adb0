"""Triplets of a batch: who may play which role, and how likely."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.distance import Cosine, Dot, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.mining import (
    MINERS,
    DistanceWeighted,
    Hardest,
    PmlMiner,
    Random,
    RandomTriplet,
    SemiHard,
    SoftHard,
    Switched,
    WideAngle,
    draw_one,
    need_pairs,
    pml_miner,
)
from tests.toys import generator

ANY_BATCH = (RandomTriplet, WideAngle, PmlMiner)
PAIRED = [c for c in MINERS.values() if c not in (*ANY_BATCH, Switched)]
ON_THE_SPHERE = (DistanceWeighted, Switched)
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
    if miner in ON_THE_SPHERE and distance == Dot():
        return
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


@pytest.mark.parametrize("distance", [Euclidean(), Dot()], ids=repr)
@pytest.mark.parametrize("scale", [0.01, 10.0])
@pytest.mark.parametrize("as_published", [False, True])
def test_distance_weighting_refuses_distances_that_do_not_compare_unit_vectors(distance, scale, as_published):
    z, labels = scale * torch.randn(8, 3, generator=generator()), torch.arange(4).repeat_interleave(2)
    said = r"the unit sphere, and (Euclidean|Dot)\(\) does not compare unit vectors\. Use Spherical\(\) as the distance"
    with pytest.raises(ValueError, match=said):
        mined(DistanceWeighted(as_published=as_published), z, labels, distance)


def test_a_loss_on_cosines_is_weighted_by_the_distances_on_the_sphere():
    z, labels = torch.randn(32, 8, generator=generator()), torch.arange(16).repeat_interleave(2)
    found = mined(DistanceWeighted(), z, labels, Cosine())
    assert torch.equal(found.negative, mined(DistanceWeighted(), z, labels, Spherical()).negative)


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


def test_random_triplets_of_a_single_class_take_any_other_row_for_a_negative():
    t = mined(RandomTriplet(), torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    check_roles(t, torch.zeros(4, dtype=torch.long))
    assert bool((t.negative != t.anchor).all())
    alone = mined(RandomTriplet(), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    assert [role.tolist() for role in (alone.anchor, alone.positive, alone.negative)] == [[0], [0], [0]]


def test_random_triplets_are_uniform_over_the_population():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    population = [tuple(t) for t in RandomTriplet().population(labels).tolist()]
    counts = dict.fromkeys(population, 0)
    for seed in range(400):
        t = mined(RandomTriplet(), torch.zeros(6, 2), labels, seed=seed)
        for triplet in zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist()):
            counts[triplet] += 1
    expected = 400 * 6 / len(population)
    assert all(abs(n - expected) < 5 * math.sqrt(expected) for n in counts.values())


def test_a_large_batch_is_mined_without_listing_its_triplets():
    labels = torch.arange(400) % 4
    t = mined(RandomTriplet(), torch.zeros(400, 2), labels)
    check_roles(t, labels)
    numbers = (t.anchor * 400 + t.positive) * 400 + t.negative
    assert len(numbers.unique()) == 400


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_switched_triplets_are_those_of_the_miner_or_the_anchor_twice(probability):
    z, labels = torch.randn(16, 4, generator=generator()), torch.arange(4).repeat_interleave(4)
    switches = 0
    for seed in range(100):
        plain, t = (
            mined(SemiHard(), z, labels, seed=seed),
            mined(Switched(SemiHard(), probability), z, labels, seed=seed),
        )
        switched = torch.equal(t.positive, t.anchor)
        assert torch.equal(t.anchor, plain.anchor)
        assert torch.equal(t.positive, plain.anchor if switched else plain.positive)
        assert torch.equal(t.negative, plain.positive if switched else plain.negative)
        switches += switched
    assert abs(switches - 100 * probability) <= 5 * math.sqrt(100 * probability * (1 - probability))


def test_the_coin_is_the_same_for_all_shards_of_a_batch():
    z, labels = torch.randn(16, 4, generator=generator()), torch.arange(4).repeat_interleave(4)
    for seed in range(30):
        halves = [
            Switched(Random(), 0.5)(z[rows], labels[rows], Spherical(), draws=Draws(seed), index=rows)
            for rows in (torch.arange(8), torch.arange(8, 16))
        ]
        assert len({torch.equal(t.positive, t.anchor) for t in halves}) == 1


def test_a_probability_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"Switched needs a probability in \[0, 1\], got 1\.5"):
        Switched(Random(), 1.5)


def test_batches_that_are_not_pairs_are_named():
    need_pairs(Random(), torch.tensor([1, 1, 0, 0]))
    for labels in (torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1])):
        with pytest.raises(ValueError, match=rf"Random needs batches of pairs.*these {len(labels)} rows are not"):
            need_pairs(Random(), labels)


def test_a_borrowed_miner_lists_what_the_library_finds():
    z, labels = torch.randn(12, 4, generator=generator(), dtype=torch.float64), torch.arange(4).repeat_interleave(3)
    d = Spherical().matrix(z, z)
    expected = {
        (a, p, n)
        for a in range(12)
        for p in range(12)
        for n in range(12)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n] and d[a, p] < d[a, n] <= d[a, p] + 0.2
    }
    t = mined(PmlMiner("TripletMarginMiner", {"margin": 0.2, "type_of_triplets": "semihard"}), z, labels)
    found = list(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist()))
    assert len(found) == len(expected) > 0
    assert set(found) == expected
    sampled = mined(PmlMiner("TripletMarginMiner", {"margin": 0.2, "type_of_triplets": "semihard"}, True), z, labels)
    assert len(sampled.anchor) == 12
    assert set(zip(sampled.anchor.tolist(), sampled.positive.tolist(), sampled.negative.tolist())) <= expected


def test_pairs_of_a_borrowed_miner_become_the_triplets_that_share_their_anchor():
    z, labels = torch.randn(12, 4, generator=generator()), torch.arange(4).repeat_interleave(3)
    miner = PmlMiner("MultiSimilarityMiner", {"epsilon": 0.1})
    a, p, b, n = miner.tuples(z, labels, Cosine(), draws=Draws(0), index=torch.arange(12))
    expected = {(int(i), int(j), int(l)) for i, j in zip(a, p) for k, l in zip(b, n) if i == k}
    t = mined(miner, z, labels, Cosine())
    assert set(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist())) == expected
    check_roles(t, labels)


def test_a_borrowed_miner_that_finds_nothing_hands_over_to_random_triplets():
    labels = torch.arange(4).repeat_interleave(2)
    far_apart = torch.eye(4).repeat_interleave(2, dim=0)
    miner = PmlMiner("TripletMarginMiner", {"margin": 0.1, "type_of_triplets": "hard"})
    assert all(len(rows) == 0 for rows in miner.tuples(far_apart, labels, Spherical(), draws=Draws(0), index=labels))
    check_roles(mined(miner, far_apart, labels), labels)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TripletMarginMinr", "has no 'TripletMarginMinr' among its miners. Did you mean TripletMarginMiner"),
        ("EmbeddingsAlreadyPackagedAsTriplets", "use --batches TripletBatches"),
    ],
)
def test_a_borrowed_miner_that_is_not_there_is_answered_with_those_that_are(name, said):
    with pytest.raises(ValueError, match=said):
        pml_miner(name)


def test_arguments_of_a_borrowed_miner_are_checked():
    with pytest.raises(ValueError, match=r"pml:AngularMiner has no argument 'angel'\. Did you mean angle"):
        mined(PmlMiner("AngularMiner", {"angel": 20}), torch.randn(4, 3, generator=generator()), torch.arange(4) // 2)
    with pytest.raises(ValueError, match=r"does not compare embeddings with Cosine\(\).*--loss\.distance Spherical"):
        mined(PmlMiner("AngularMiner"), torch.randn(4, 3, generator=generator()), torch.arange(4) // 2, Cosine())


def test_wide_angles_are_those_the_library_lists():
    z, labels = torch.randn(15, 4, generator=generator(6), dtype=torch.float64), torch.arange(5).repeat_interleave(3)
    theirs = mined(PmlMiner("AngularMiner", {"angle": 35}), z, labels)
    expected = set(zip(theirs.anchor.tolist(), theirs.positive.tolist(), theirs.negative.tolist()))
    ours = [tuple(t) for t in WideAngle(35.0).candidates(z, labels).tolist()]
    assert len(ours) == len(expected) > 15
    assert set(ours) == expected
    t = mined(WideAngle(35.0), z, labels)
    assert len(t.anchor) == 15
    assert set(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist())) <= expected
    check_roles(mined(WideAngle(90.0), z, labels), labels)  # none so wide


@pytest.mark.parametrize("distance", [Spherical(), Cosine()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("where", ["coincident", "opposite"])
def test_distance_weighting_as_published_draws_from_all_rows_if_a_negative_coincides(distance, where):
    """Rows are unit vectors of the axes, so that distances are exact."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    z = torch.eye(8)
    z[2] = z[0] if where == "coincident" else -z[0]
    drawn = torch.stack([
        mined(DistanceWeighted(0.0, 2.0, as_published=True), z, labels, distance, seed=s).negative for s in range(400)
    ])  # fmt: skip
    rows = torch.bincount(drawn[:, 0], minlength=8) / 400
    assert torch.allclose(rows, torch.full((8,), 1 / 8), atol=0.07)  # four standard deviations
    assert not bool((labels[drawn[:, 2]] == 2).any())  # the anchors without such a negative draw as ever
    corrected = mined(DistanceWeighted(0.0, 2.0), z, labels, distance).negative[0]
    assert labels[corrected] != 0
