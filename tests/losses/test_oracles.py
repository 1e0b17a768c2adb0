"""Losses against pytorch-metric-learning: equal where they are the same, and by how much they are not elsewhere."""

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import Contrastive, InfoNce, LiftedStructure, Margin, MultiSimilarity, NPair, Snr, Triplet
from robustdml.mining import DistanceWeighted, SemiHard
from robustdml.mining.miner import anchor_distances
from robustdml.types import Triplets
from tests.toys import generator

LABELS = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2, 1, 1, 3, 3])
TRIPLETS = Triplets(torch.arange(0, 12, 2), torch.arange(1, 12, 2), torch.tensor([2, 7, 3, 0, 11, 4]))
TUPLE = (TRIPLETS.anchor, TRIPLETS.positive, TRIPLETS.negative)
THEIRS = {
    Spherical(): distances.LpDistance(normalize_embeddings=True),
    Euclidean(): distances.LpDistance(normalize_embeddings=False),
    Cosine(): distances.CosineSimilarity(),
}
OFFSET = 5e-6  # of value and gradient, from the 1e-6 that published kernels add to every coordinate


def embeddings():
    return torch.randn(12, 8, generator=generator(1), dtype=torch.float64).requires_grad_()


def ours(loss, triplets=None):
    z = embeddings()
    value = loss(z, LABELS, triplets, draws=Draws(0), index=torch.arange(12))
    return value.detach(), torch.autograd.grad(value, z)[0]


def theirs(loss, *arguments, factor=1.0, **keywords):
    z = embeddings()
    value = factor * loss(z, LABELS, *arguments, **keywords)
    return value.detach(), torch.autograd.grad(value, z)[0]


def agree(one, other, tolerance):
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.mark.parametrize("distance", THEIRS, ids=repr)
def test_triplet_is_theirs_with_the_mean_over_all(distance):
    reducer, tolerance = reducers.MeanReducer(), 1e-12 if distance == Cosine() else OFFSET
    oracle = losses.TripletMarginLoss(margin=0.5, distance=THEIRS[distance], reducer=reducer)
    agree(ours(Triplet(distance, margin=0.5), TRIPLETS), theirs(oracle, TUPLE), tolerance)
    of_active = losses.TripletMarginLoss(margin=0.5, distance=THEIRS[distance])  # their own default
    assert float(theirs(of_active, TUPLE)[0]) > 1.1 * float(ours(Triplet(distance, margin=0.5), TRIPLETS)[0])


@pytest.mark.parametrize("distance", [Spherical(), Euclidean()], ids=repr)
def test_contrastive_is_theirs(distance):
    oracle = losses.ContrastiveLoss(pos_margin=0, neg_margin=1.3, distance=THEIRS[distance])
    agree(ours(Contrastive(distance, margin=1.3), TRIPLETS), theirs(oracle, TUPLE), OFFSET)


def test_published_cosine_contrastive_is_theirs_and_has_no_negative_term():
    oracle = losses.ContrastiveLoss(pos_margin=1, neg_margin=1, distance=THEIRS[Cosine()])
    agree(ours(Contrastive(Cosine(), margin=0.0), TRIPLETS), theirs(oracle, TUPLE), 1e-11)


def test_margin_is_theirs_where_one_side_is_inactive_and_not_elsewhere():
    for beta, equal in ((0.0, True), (1.2, False)):
        oracle = losses.MarginLoss(margin=0.2, beta=beta, distance=THEIRS[Spherical()])
        gap = abs(float(theirs(oracle, TUPLE)[0]) - float(ours(Margin(beta=beta), TRIPLETS)[0]))
        assert gap < OFFSET if equal else gap > 0.1


def test_multi_similarity_is_theirs_with_their_miner():
    z = embeddings().detach()
    mined = miners.MultiSimilarityMiner(epsilon=0.1)(z, LABELS)
    oracle = losses.MultiSimilarityLoss(alpha=2, beta=40, base=0.5)
    agree(ours(MultiSimilarity()), theirs(oracle, mined), 1e-12)
    assert abs(float(ours(MultiSimilarity(pairs="as-published"))[0]) - float(theirs(oracle, mined)[0])) > 1e-2


def anchored(keep_self=False):
    """All pairs whose first row is even, as their indices."""
    a, other = torch.meshgrid(torch.arange(0, 12, 2), torch.arange(12), indexing="ij")
    a, other = a.flatten(), other.flatten()
    same = LABELS[a] == LABELS[other]
    near, far = same & (a != other), ~same
    return a[near], other[near], a[far], other[far]


def test_lifted_structure_is_twice_theirs_of_even_anchors():
    oracle = losses.GeneralizedLiftedStructureLoss(neg_margin=0.2, pos_margin=0, distance=THEIRS[Spherical()])
    found = ours(LiftedStructure(Spherical(), margin=0.2, weight=0.0))
    agree(found, theirs(oracle, anchored(), factor=2.0), 1e-7)
    assert abs(float(theirs(oracle)[0]) - float(found[0])) > 1e-3  # of all anchors


def test_infonce_is_the_mean_of_theirs_in_both_directions():
    z = embeddings()
    anchor, positive = z[::2], z[1::2]
    own, other = torch.arange(6), torch.arange(6)  # two objects: one would drop the diagonal
    oracle = losses.NTXentLoss(temperature=1.0)
    value = (
        oracle(anchor, own, ref_emb=positive, ref_labels=other)
        + oracle(positive, own, ref_emb=anchor, ref_labels=other)
    ) / 2
    agree(ours(InfoNce()), (value.detach(), torch.autograd.grad(value, z)[0]), 1e-12)


def test_snr_is_their_triplet_loss_on_ratios_and_the_centring_of_anchors():
    oracle = losses.TripletMarginLoss(
        margin=0.2, distance=distances.SNRDistance(), reducer=reducers.AvgNonZeroReducer()
    )
    agree(ours(Snr(Spherical(), zero_mean=0.0), TRIPLETS), theirs(oracle, TUPLE), 1e-12)


def test_n_pair_is_not_theirs():
    assert abs(float(ours(NPair(weight=0.0))[0]) - float(theirs(losses.NPairsLoss())[0])) > 0.1


@pytest.mark.parametrize("distance", THEIRS, ids=repr)
def test_semihard_candidates_are_those_they_list(distance):
    z = embeddings().detach()
    a, p, n = miners.TripletMarginMiner(margin=0.4, type_of_triplets="semihard", distance=THEIRS[distance])(z, LABELS)
    ours = SemiHard(0.4).negatives(anchor_distances(z, distance), LABELS)
    listed = torch.zeros_like(ours)
    of_pairs = (a % 2 == 0) & (p == a + 1)
    listed[a[of_pairs] // 2, n[of_pairs]] = True
    found = listed.any(dim=1)
    assert int(found.sum()) > 0
    assert torch.equal(ours[found], listed[found])


def test_distance_weights_have_their_cutoffs():
    """Theirs are normalised by the largest weight of the whole matrix first, which a row's own sum undoes."""
    z = embeddings().detach()
    d = anchor_distances(z, Spherical())
    weights = DistanceWeighted(cutoff=0.5, farthest=1.4).weights(d, LABELS, z.shape[1])
    counts = torch.zeros_like(weights)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(300):
            a, _, n = miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4)(z, LABELS)
            even = a % 2 == 0
            counts.index_put_((a[even] // 2, n[even]), torch.ones(int(even.sum())).double(), accumulate=True)
    shares = counts / counts.sum(dim=1, keepdim=True)
    torch.testing.assert_close(shares, weights, atol=0.07, rtol=0)
