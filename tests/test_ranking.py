"""Ranking a gallery: against sorting everything."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.distance import DISTANCES, Cosine, Euclidean, Spherical
from robustdml.ranking import Gallery, Rankings, distances_to, nearest_is_same_class, neighbours, query_blocks, rank_of
from tests.toys import generator

ALL = pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)


def some(rows, dim=4, seed=0):
    return torch.randn(rows, dim, generator=generator(seed), dtype=torch.float64)


@ALL
@pytest.mark.parametrize("budget", [1, 1000, 2**28])
def test_neighbours_are_those_of_a_full_sort_whatever_the_budget(distance, budget):
    queries, gallery = some(7), some(23, seed=1)
    d = distance.matrix(queries, gallery).sort(dim=1)
    values, rows = neighbours(distance, queries, gallery, 5, budget=budget)
    assert torch.equal(rows, d.indices[:, :5])
    torch.testing.assert_close(values, d.values[:, :5], atol=1e-12, rtol=0)


@ALL
def test_a_query_does_not_retrieve_itself_even_among_its_copies(distance):
    gallery = some(6).repeat(2, 1)
    itself = torch.arange(12)
    _, rows = neighbours(distance, gallery, gallery, 11, itself=itself, budget=1)
    assert bool((rows != itself[:, None]).all())
    assert torch.equal(rows.sort(dim=1).values, torch.stack([itself[itself != i] for i in range(12)]))


@pytest.mark.parametrize(("k", "itself"), [(0, None), (6, None), (5, torch.arange(5))])
def test_more_neighbours_than_there_are_are_refused(k, itself):
    with pytest.raises(
        ValueError, match=rf"asked for the {k} nearest of {5 - (itself is not None)} gallery items; k must be 1"
    ):
        neighbours(Euclidean(), some(5), some(5), k, itself=itself)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 5000))
def test_blocks_cover_every_query_once_and_keep_to_the_budget(queries, gallery, budget):
    blocks = list(query_blocks(queries, gallery, copies=2, budget=budget))
    assert [i for b in blocks for i in range(queries)[b]] == list(range(queries))
    assert all(b.stop - b.start == 1 or (b.stop - b.start) * gallery * 16 <= budget for b in blocks)


@ALL
@pytest.mark.parametrize("ties_before", [True, False])
def test_counted_ranks_are_the_places_of_a_stable_sort_without_ties(distance, ties_before):
    d = distance.matrix(some(6), some(30, seed=1))
    places = d.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    counted = rank_of(d, d, resolution=1e-12, ties_before=ties_before)
    assert torch.equal(counted - int(ties_before), places)  # with ties before it an item precedes itself


def test_ties_are_counted_before_or_not_at_all():
    d = torch.tensor([[0.1, 0.3, 0.3, 0.3 + 1e-9, 0.5]], dtype=torch.float64)
    threshold = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    assert rank_of(d, threshold, resolution=1e-7, ties_before=True).tolist() == [[4, 5]]
    assert rank_of(d, threshold, resolution=1e-7, ties_before=False).tolist() == [[1, 4]]


DISTANCE_ROWS = st.lists(st.integers(0, 5), min_size=8, max_size=8)


@given(DISTANCE_ROWS, st.lists(st.booleans(), min_size=8, max_size=8), st.integers(1, 8))
def test_a_hit_needs_fewer_than_k_others_at_or_before_the_nearest_of_the_class(row, same, k):
    found = nearest_is_same_class(torch.tensor([row]).double(), torch.tensor([same]), 1e-7, k)
    others = [r for r, s in zip(row, same) if not s]
    first = min((r for r, s in zip(row, same) if s), default=None)
    assert bool(found) == (first is not None and sum(r <= first for r in others) < k)


@given(DISTANCE_ROWS, st.lists(st.booleans(), min_size=8, max_size=8))
def test_hits_only_grow_with_k(row, same):
    hits = [
        bool(nearest_is_same_class(torch.tensor([row]).double(), torch.tensor([same]), 1e-7, k)) for k in range(1, 9)
    ]
    assert hits == sorted(hits)


@ALL
def test_permuting_the_gallery_permutes_the_neighbours(distance):
    queries, gallery = some(5), some(20, seed=1)
    order = torch.randperm(20, generator=generator())
    _, rows = neighbours(distance, queries, gallery, 6)
    _, moved = neighbours(distance, queries, gallery[order], 6)
    assert torch.equal(order[moved], rows)


@pytest.mark.parametrize("distance", [Euclidean(), Spherical(), Cosine()], ids=repr)
def test_float32_embeddings_are_ranked_in_float64(distance):
    near, nearer = torch.tensor([[1.0, 1e-3], [1.0, 0.9e-3]]).split(1)
    _, rows = neighbours(distance, torch.tensor([[1.0, 0.0]]), torch.cat([near, nearer]), 2)
    assert rows.tolist() == [[1, 0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gallery_of_broken_embeddings_is_refused(bad):
    z = some(5)
    z[3, 1] = z[4, 0] = bad
    with pytest.raises(ValueError, match=r"2 of 5 embeddings are NaN or infinite \(first at row 3\)\. Nothing can be "
                       r"ranked with them; check the weights, or lower the learning rate"):  # fmt: skip
        Gallery(z, torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("n", [3, 63, 64, 65, 200])
def test_sorted_rankings_count_and_sum_as_a_full_pass_does(n):
    g = torch.Generator().manual_seed(n)
    z = torch.randn(n, 4, generator=g, dtype=torch.float64)
    rows = torch.randint(0, n, (3, 2), generator=g)
    rankings = Rankings.of(distances_to(Euclidean(), z), z, rows)
    d = Euclidean().matrix(z[rows.flatten()], z).view(3, 2, n)
    unit = torch.tensor([2, 0, 0, 1, 2])
    value = torch.rand(5, 2, generator=g, dtype=torch.float64) * 4
    value[0] = rankings.ordered[2, :, n // 2]  # a tie
    value[1], value[3] = -1.0, 100.0  # before the first, behind the last
    for ties, compare in ((False, torch.lt), (True, torch.le)):
        expected = compare(rankings.ordered[unit], value[..., None]).sum(dim=2)
        count = rankings.before(value, unit, ties=ties)
        assert torch.equal(count, expected)
        first = torch.arange(n) < count[..., None]
        summed = torch.where(first, rankings.ordered[unit], 0).sum(dim=2)
        torch.testing.assert_close(rankings.sum_of_first(count, unit), summed)
    torch.testing.assert_close(rankings.ordered, d.sort(dim=2).values, atol=1e-7, rtol=0)
    torch.testing.assert_close(rankings.spread, rankings.ordered[..., -1] - rankings.ordered[..., 0])
