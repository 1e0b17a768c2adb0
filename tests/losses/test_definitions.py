"""Losses against literal loops over their equations, in float64."""

import math

import pytest
import torch

from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import (
    Gil,
    InfoNce,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    NPair,
    Quadruplet,
    Rhomboid,
    Snr,
    Triplet,
)
from robustdml.types import Triplets
from tests.toys import generator

DISTANCES = [Spherical(), Euclidean(), Cosine()]
EVERY_DISTANCE = pytest.mark.parametrize("distance", DISTANCES, ids=repr)
LABELS = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2, 1, 1])
TRIPLETS = Triplets(torch.arange(0, 10, 2), torch.arange(1, 10, 2), torch.tensor([2, 7, 3, 0, 6]))
INDEX = torch.arange(10)
HINGE = (0.4, 0.7)


def embeddings(dim=5):
    return torch.randn(10, dim, generator=generator(3), dtype=torch.float64)


def evaluated(loss, z=None, labels=LABELS, triplets=None):
    z = embeddings() if z is None else z
    return loss(z, labels, triplets, draws=Draws(0), index=INDEX[: len(z)])


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def active(values):
    return mean(v for v in values if v > 0)


@pytest.fixture(params=DISTANCES, ids=repr)
def setting(request):
    """A distance, d(i, j) of batch rows, rows as the distance sees them, and the triplets one by one."""
    distance, z = request.param, embeddings()
    return (
        distance,
        lambda i, j: float(distance.pairs(z[i][None], z[j][None])),
        z if distance == Euclidean() else z / z.norm(dim=1, keepdim=True),
        list(zip(TRIPLETS.anchor.tolist(), TRIPLETS.positive.tolist(), TRIPLETS.negative.tolist())),
    )


def test_margin_averages_each_side_over_its_active_terms(setting):
    distance, d, _, triplets = setting
    beta = mean(d(a, p) for a, p, _ in triplets)
    loss = Margin(distance, margin=0.1, beta=beta)
    expected = active(d(a, p) - beta + 0.1 for a, p, _ in triplets) + active(
        beta - d(a, n) + 0.1 for a, _, n in triplets
    )
    for built in (loss, loss.build(3, 5).double()):
        assert float(evaluated(built, triplets=TRIPLETS).detach()) == pytest.approx(expected, abs=1e-7)


def test_snr_compares_variances_of_differences(setting):
    distance, _, rows, triplets = setting

    def r(u, v):
        return float((rows[u] - rows[v]).var() / rows[u].var())

    expected = active(r(a, p) - r(a, n) + 0.3 for a, p, n in triplets)
    expected += 0.05 * mean(abs(float(rows[a].sum())) for a, _, _ in triplets)
    assert float(evaluated(Snr(distance, margin=0.3, zero_mean=0.05), triplets=TRIPLETS)) == pytest.approx(expected)


def test_quadruplets_compare_the_positive_with_two_negatives(setting):
    distance, d, _, triplets = setting
    others = [5, 3, 9, 7, 1]
    expected = mean(max(0, d(a, p) - d(a, n) + HINGE[0]) for a, p, n in triplets)
    expected += mean(max(0, d(a, p) - d(n, m) + HINGE[1]) for (a, p, n), m in zip(triplets, others))
    z = embeddings()
    rows = torch.stack([*TRIPLETS.of(z), z[others]], dim=1)
    found = Quadruplet(distance, margin=HINGE[0], second_margin=HINGE[1]).on_quadruplets(rows)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_rhomboid_makes_the_negative_an_anchor(setting):
    distance, d, _, triplets = setting
    expected = mean(max(0, d(a, p) - d(a, n) + 0.4) for a, p, n in triplets)
    expected += mean(max(0, d(n, n ^ 1) - d(n, a) + 0.4) for a, _, n in triplets)
    assert float(evaluated(Rhomboid(distance, margin=0.4), triplets=TRIPLETS)) == pytest.approx(expected, abs=1e-12)


def test_gil_weighs_linear_terms_with_constant_distances(setting):
    distance, d, rows, triplets = setting
    attraction = [float((rows[p] @ (rows[p] / 2 - rows[a]) + 1) * d(a, p)) for a, p, _ in triplets]
    repulsion = [float((rows[n] @ (rows[a] - rows[n] / 2) + 1) * d(a, n) ** -3) for a, _, n in triplets]
    assert float(evaluated(Gil(distance), triplets=TRIPLETS)) == pytest.approx(mean(attraction + repulsion))
    z = embeddings().requires_grad_()
    (gradient,) = torch.autograd.grad(evaluated(Gil(Euclidean()), z, triplets=TRIPLETS), z)
    first = int(TRIPLETS.positive[0])  # is in one triplet alone: d/dp of (p.p/2 - p.a + 1) d is (p - a) d
    a, p = z.detach()[[0, first]]
    torch.testing.assert_close(gradient[first], (p - a) * Euclidean().pairs(a[None], p[None]) / 10)


def test_lifted_structure_sums_over_all_pairs_of_an_anchor(setting):
    distance, d, rows, _ = setting
    costs = []
    for a in range(0, 10, 2):
        near = sum(math.exp(d(a, p)) for p in range(10) if p != a and LABELS[p] == LABELS[a])
        far = sum(math.exp(0.4 - d(a, n)) for n in range(10) if LABELS[n] != LABELS[a])
        costs.append(max(0, math.log(near) + math.log(far)))
    expected = mean(costs) + 0.05 * mean(float(row.norm()) for row in rows)
    assert float(evaluated(LiftedStructure(distance, 0.4, 0.05))) == pytest.approx(expected, abs=1e-5)


def test_n_pair_compares_with_every_row_of_another_class(setting):
    distance, _, rows, _ = setting
    costs = []
    for a in range(0, 10, 2):
        unit = rows[a] / rows[a].norm()
        far = [float(unit @ (rows[n] - rows[a + 1])) for n in range(10) if LABELS[n] != LABELS[a]]
        costs.append(math.log(1 + sum(map(math.exp, far))))
    expected = mean(costs) + 0.05 * mean(float(row.norm()) for row in rows)
    assert float(evaluated(NPair(distance, 0.05))) == pytest.approx(expected, abs=1e-12)


def similar(filtered):
    """The mean over rows (over anchors where published) of both logarithms, from the definition."""
    z = torch.nn.functional.normalize(embeddings(), dim=1)
    s = (z @ z.T).tolist()
    costs = []
    for i in range(0, 10, 1 if filtered else 2):
        positives = [j for j in range(10) if LABELS[j] == LABELS[i] and (j != i or not filtered)]
        negatives = [j for j in range(10) if LABELS[j] != LABELS[i]]
        if filtered:
            hardest, easiest = max(s[i][n] for n in negatives), min(s[i][p] for p in positives)
            positives = [p for p in positives if s[i][p] - 0.1 < hardest]
            negatives = [n for n in negatives if s[i][n] + 0.1 > easiest]
        near = math.log(1 + sum(math.exp(-3 * (s[i][p] - 0.4)) for p in positives)) / 3
        costs.append(near + math.log(1 + sum(math.exp(20 * (s[i][n] - 0.4)) for n in negatives)) / 20)
    return mean(costs)


@pytest.mark.parametrize(("pairs", "filtered"), [("informative", True), ("as-published", False)])
def test_multi_similarity_is_that_of_the_paper_or_the_published_one(pairs, filtered):
    loss = MultiSimilarity(alpha=3.0, beta=20.0, base=0.4, epsilon=0.1, pairs=pairs)
    assert float(evaluated(loss)) == pytest.approx(similar(filtered), abs=1e-12)
    assert similar(True) != pytest.approx(similar(False), abs=1e-3)


def test_infonce_is_the_mean_of_two_cross_entropies():
    z = torch.nn.functional.normalize(embeddings(), dim=1)
    logits = (math.exp(0.7) * z[::2] @ z[1::2].T).tolist()
    rows = [-math.log(math.exp(logits[i][i]) / sum(map(math.exp, logits[i]))) for i in range(5)]
    columns = [-math.log(math.exp(logits[i][i]) / sum(math.exp(logits[j][i]) for j in range(5))) for i in range(5)]
    assert float(evaluated(InfoNce(logit_scale=0.7))) == pytest.approx(mean(rows) / 2 + mean(columns) / 2)
    assert float(evaluated(InfoNce(logit_scale=0.7), triplets=TRIPLETS)) == pytest.approx(
        float(evaluated(InfoNce(logit_scale=0.7)))
    )


def test_a_fixed_anchor_gets_no_gradient_and_changes_no_value():
    z = embeddings().requires_grad_()
    fixed, free = Triplet(margin=3.0, anchor="fixed"), Triplet(margin=3.0)
    assert torch.equal(evaluated(fixed, z, triplets=TRIPLETS), evaluated(free, z, triplets=TRIPLETS))
    gradients = [torch.autograd.grad(evaluated(loss, z, triplets=TRIPLETS), z)[0] for loss in (fixed, free)]
    only_anchor = [i for i in range(0, 10, 2) if i not in TRIPLETS.negative.tolist()]
    assert float(gradients[0][only_anchor].abs().max()) == 0
    assert float(gradients[1][only_anchor].abs().min()) > 0
    torch.testing.assert_close(gradients[0][1::2], gradients[1][1::2])


@pytest.mark.parametrize("second", ["mined", "as-published"])
def test_the_second_negative_is_of_the_promised_kind(second):
    labels = torch.arange(4).repeat_interleave(4)
    draws = [
        Quadruplet(second=second).others(
            Triplets(torch.arange(0, 16, 2), torch.arange(1, 16, 2), torch.tensor([4, 5, 8, 9, 0, 0, 1, 2])),
            labels,
            draws=Draws(seed),
            index=torch.arange(16),
        )
        for seed in range(200)
    ]
    negatives = torch.tensor([4, 5, 8, 9, 0, 0, 1, 2])
    found = torch.stack(draws)
    if second == "mined":
        assert bool((labels[found] != labels[negatives]).all())
        assert set(found.flatten().tolist()) == set(negatives.tolist())
    else:  # places in the list of another class than n's, used as rows
        for t in range(8):
            places = {s for s in range(8) if labels[negatives[s]] != labels[negatives[t]]}
            assert set(found[:, t].tolist()) == places


def test_without_another_class_among_the_mined_negatives_any_row_of_another_class_will_do():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    triplets = Triplets(torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([4, 5]))
    for seed in range(20):
        found = Quadruplet().others(triplets, labels, draws=Draws(seed), index=torch.arange(6))
        assert bool((labels[found] == 0).all())
    alone = Quadruplet().others(
        Triplets(*torch.tensor([[0], [1], [1]])), torch.zeros(2).long(), draws=Draws(0), index=torch.arange(2)
    )
    assert int(alone) in (0, 1)


def test_published_second_negatives_take_a_lone_first_place_for_none():
    """The published list holds places; one that holds the place 0 alone is empty by its own test."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    triplets = Triplets(torch.tensor([2, 0, 0, 0]), torch.tensor([3, 1, 1, 1]), torch.tensor([0, 4, 4, 4]))
    found = {
        Quadruplet(second="as-published").others(triplets, labels, draws=Draws(s), index=torch.arange(8))[1].item()
        for s in range(300)
    }
    assert found == set(range(8))
