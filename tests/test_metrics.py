"""Retrieval metrics against loops over their definitions, and against another library."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.distance import DISTANCES, Euclidean, Leading, Spherical
from robustdml.metrics import average_precision, cluster, nmi, ranking_matches, retrieval_scores
from tests.toys import generator

ALL = pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)


def some(classes=4, per_class=7, dim=3, seed=0):
    g = generator(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    centres = torch.randn(classes, dim, generator=g, dtype=torch.float64)
    return centres[labels] + torch.randn(len(labels), dim, generator=g, dtype=torch.float64), labels


def literal(d, same):
    """first, r_precision, ap, ap_at_r, ap_at_10 of one ranking; `same` is None for what is not ranked."""
    ranked = [s for _, s in sorted((float(x), s) for x, s in zip(d, same) if s is not None)]
    r = sum(ranked)
    if r == 0:
        return [math.nan] * 5
    precision = [sum(ranked[: j + 1]) / (j + 1) for j in range(len(ranked))]

    def area(cut):
        return sum(p for j, p in enumerate(precision) if ranked[j] and j < cut)

    return [ranked.index(True), sum(ranked[:r]) / r, area(len(ranked)) / r, area(r) / r, area(10) / 10]


def table(scores):
    return torch.stack([scores.first, scores.r_precision, scores.ap, scores.ap_at_r, scores.ap_at_10], dim=1)


@ALL
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("budget", [1, 2**28])
def test_scores_are_the_definitions(distance, inside, budget):
    z, labels = some()
    q, q_labels = (z, labels) if inside else some(seed=1)
    itself = torch.arange(len(z)) if inside else None
    d = distance.matrix(q, z)
    expected = []
    for i in range(len(q)):
        same = [None if inside and n == i else bool(labels[n] == q_labels[i]) for n in range(len(z))]
        expected.append(literal(d[i], same))
    found = retrieval_scores(distance, q, q_labels, z, labels, itself=itself, budget=budget)
    torch.testing.assert_close(table(found), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 8))
def test_average_precision_is_the_definition(rows, cut):
    expected = [sum(sum(row[: j + 1]) / (j + 1) for j in range(min(cut, 6)) if row[j]) / cut for row in rows]
    found = average_precision(torch.tensor(rows).numpy(), cut)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_lonely_queries_are_left_out_and_counted():
    z, labels = some()
    labels = labels.clone()
    labels[0], labels[5] = 70, 71
    itself = torch.arange(len(z))
    found = retrieval_scores(Euclidean(), z, labels, z, labels, itself=itself)
    assert found.lonely == 2
    assert bool(table(found)[[0, 5]].isnan().all())
    assert bool(found.recall_at(1)[[0, 5]].isnan().all())
    rest = (itself != 0) & (itself != 5)
    assert found.means()["recall@1"] == float(found.recall_at(1)[rest].mean())
    assert found.means()["map"] == pytest.approx(float(found.ap[rest].mean()))


@ALL
def test_recall_grows_with_k_up_to_one(distance):
    z, labels = some()
    found = retrieval_scores(distance, z, labels, z, labels, itself=torch.arange(len(z)))
    means = list(found.means(tuple(range(1, len(z)))).values())[: len(z) - 1]
    assert means == sorted(means)
    assert means[0] < means[-1] == 1


@ALL
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_embedding_retrieves_nothing(distance, value, dtype):
    labels = torch.arange(4).repeat_interleave(5)
    z = torch.full((20, 7), value, dtype=dtype)
    found = retrieval_scores(distance, z, labels, z, labels, itself=torch.arange(20))
    assert found.first.tolist() == [15] * 20
    assert found.means()["recall@1"] == 0
    assert found.means()["r_precision"] == 0


@ALL
def test_exact_duplicates_of_another_class_come_first(distance):
    z, labels = some()
    z, labels = torch.cat([z, z]), torch.cat([labels, labels + 100])
    found = retrieval_scores(Spherical(), z, labels, z, labels, itself=torch.arange(len(z)))
    assert found.means()["recall@1"] == 0


@ALL
def test_permuting_the_gallery_changes_no_score(distance):
    z, labels = some()
    order = torch.randperm(len(z), generator=generator())
    place = order.argsort()
    found = retrieval_scores(distance, z, labels, z, labels, itself=torch.arange(len(z)))
    moved = retrieval_scores(distance, z, labels, z[order], labels[order], itself=place)
    torch.testing.assert_close(table(moved), table(found), atol=0, rtol=0)


def test_a_perfect_ranking_scores_one_everywhere():
    labels = torch.arange(3).repeat_interleave(4)
    z = torch.nn.functional.one_hot(labels).double() + 1e-3 * some(3, 4)[0]
    means = retrieval_scores(Euclidean(), z, labels, z, labels, itself=torch.arange(12)).means()
    assert {name: means[name] for name in ("recall@1", "map", "map_at_r", "r_precision")} == dict.fromkeys(
        ("recall@1", "map", "map_at_r", "r_precision"), 1
    )


def test_the_rankings_themselves_can_be_had():
    z, labels = some()
    itself = torch.arange(len(z))
    matches = ranking_matches(Euclidean(), z, labels, z, labels, itself=itself)
    scores = retrieval_scores(Euclidean(), z, labels, z, labels, itself=itself)
    assert matches.shape == (len(z), len(z))
    assert not matches[:, -1].any()  # the own row
    assert torch.equal(torch.from_numpy(matches.argmax(axis=1)).double(), scores.first)


def test_no_queries_have_no_scores():
    z, labels = some()
    scores = retrieval_scores(Euclidean(), z[:0], labels[:0], z, labels)
    assert len(scores.first) == 0
    assert scores.lonely == 0


@pytest.mark.parametrize("lonely", [False, True])
def test_scores_agree_with_pytorch_metric_learning(lonely):
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    z, labels = some(5, 9, seed=3)
    z = z.float()
    if lonely:
        labels = labels.clone()
        labels[0] = 70
    calculator = calculators.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision"),
        k=len(z) - 1,
        device=torch.device("cpu"),
        knn_func=inference.CustomKNN(distances.LpDistance(normalize_embeddings=False), batch_size=64),
    )
    theirs = calculator.get_accuracy(z, labels)
    ours = retrieval_scores(Euclidean(), z, labels, z, labels, itself=torch.arange(len(z))).means()
    for mine, name in (
        ("recall@1", "precision_at_1"),
        ("r_precision", "r_precision"),
        ("map_at_r", "mean_average_precision_at_r"),
        ("map", "mean_average_precision"),
    ):
        assert ours[mine] == pytest.approx(theirs[name], abs=1e-6), name


def literal_nmi(a, b):
    n = len(a)

    def entropy(values):
        return -sum(values.count(v) / n * math.log(values.count(v) / n) for v in set(values))

    information = entropy(a) + entropy(b) - entropy(list(zip(a, b)))
    return information / ((entropy(a) + entropy(b)) / 2)


def test_nmi_is_mutual_information_over_the_mean_entropy():
    a, b = [0, 0, 1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 2, 2, 2]
    assert nmi(torch.tensor(a), torch.tensor(b)) == pytest.approx(literal_nmi(a, b), abs=1e-9)
    assert nmi(torch.tensor(a), torch.tensor(a) + 5) == pytest.approx(1)
    assert nmi(torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)) == 1


def test_clusters_of_separate_classes_are_the_classes():
    labels = torch.arange(3).repeat_interleave(10)
    z = 50 * torch.eye(3, dtype=torch.float64)[labels] + some(3, 10)[0]
    found = cluster(z, 3, Euclidean())
    assert nmi(labels, found) == pytest.approx(1)
    assert torch.equal(found, cluster(z, 3, Euclidean()))


def test_class_scores_beside_an_embedding_change_no_cluster():
    z = torch.randn(60, 4, generator=generator())
    packed = torch.cat([z, 100 * torch.randn(60, 3, generator=generator(1))], dim=1)
    assert torch.equal(cluster(z, 5, Spherical()), cluster(packed, 5, Leading(4, Spherical())))


def test_clusters_on_the_sphere_do_not_depend_on_lengths():
    z, _ = some()
    lengths = torch.rand(len(z), 1, generator=generator(), dtype=torch.float64) + 0.5
    assert nmi(cluster(z, 4, Spherical()), cluster(lengths * z, 4, Spherical())) == pytest.approx(1)


@ALL
@pytest.mark.parametrize("seed", range(3))
def test_counting_and_sorting_agree_where_distances_tie(distance, seed, monkeypatch):
    g = generator(seed)
    z = torch.randint(-2, 3, (300, 4), generator=g).float() + 1  # many distances tie, and float32 rounds them apart
    z[::7] = z[3]  # exact duplicates, of many classes
    labels = torch.randint(0, 60, (300,), generator=g)
    queries, asked = z[:200], labels[:200]
    ways = []
    for few in (64, 0):
        monkeypatch.setattr("robustdml.metrics.FEW", few)
        found = [
            retrieval_scores(distance, queries, asked, z, labels, itself=torch.arange(200), budget=2**20),
            retrieval_scores(distance, z[200:], labels[200:], queries, asked),
        ]
        ways.append(torch.cat([table(f) for f in found]))
    torch.testing.assert_close(*ways, atol=1e-12, rtol=0, equal_nan=True)


def test_only_doubtful_rows_are_computed_twice():
    """A row that float32 puts on the wrong side of a match is still counted right."""
    g = generator(0)
    z = torch.nn.functional.normalize(torch.randn(64, 16, generator=g), dim=1)
    queries, match = z[:1], z[1:2]
    near = torch.nn.functional.normalize(match + 1e-7 * torch.randn(500, 16, generator=g), dim=1)
    gallery = torch.cat([match, near])
    labels = torch.cat([torch.zeros(1), 1 + torch.arange(500)]).long()
    found = retrieval_scores(Euclidean(), queries, torch.zeros(1).long(), gallery, labels)
    d = torch.cdist(queries.double(), gallery.double())[0]
    assert found.first.tolist() == [int((d[1:] <= d[0] + 1e-7).sum())]
    single = torch.cdist(queries, gallery)[0]
    assert int((single[1:] <= single[0] + 1e-7).sum()) != int(found.first), "float32 alone would do: no test"
