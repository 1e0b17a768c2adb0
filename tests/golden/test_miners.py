"""Published miners: the sets and probabilities from which they draw."""

import torch

from robustdml.draws import Draws
from robustdml.mining import (
    DistanceWeighted,
    Hardest,
    Random,
    RandomTriplet,
    SemiHard,
    SoftHard,
    anchor_distances,
    anchors_of,
    other_class,
    partner,
    same_class,
)
from tests.golden.cases import DISTANCE, for_each

FILE = "miners"
COVERS = [r"[^/]+/(pdist|semihard|softhard|distance|hard|random|lifted|npair|random_triplet)[./]", r"set/", r"cases$"]


def named(kind):
    return lambda golden: [c for c in golden.strings("cases") if c.split("/")[1].split(".")[0] == kind]


def read(golden, case):
    subset, name = case.split("/")
    z, labels = golden.tensor(f"set/{subset}/emb"), golden.tensor(f"set/{subset}/labels")
    distance = DISTANCE[name.split(".")[1]] if "." in name else DISTANCE["N"]
    return z, labels, distance


@for_each(lambda golden: [f"{s}/pdist.{m}" for s in golden.under("set/") for m in "CEN"])
def test_distances_equal_the_published_ones(golden, case):
    z, _, distance = read(golden, case)
    published = golden.tensor(case)
    published[range(len(z)), range(len(z))] = 0
    ours = distance.matrix(z, z)
    ours[range(len(z)), range(len(z))] = 0
    close = torch.isclose(ours, published, atol=1e-7, rtol=0) | ((published < 1e-3) & (ours - published).abs().lt(1e-6))
    assert close.all()


@for_each(named("semihard"))
def test_semihard_negatives_equal_the_published_ones(golden, case):
    z, labels, distance = read(golden, case)
    ours = SemiHard(golden.number(f"{case}/margin")).negatives(anchor_distances(z, distance), labels)
    assert torch.equal(ours, golden.tensor(f"{case}/neg_mask"))


@for_each(named("softhard"))
def test_softhard_candidates_equal_the_published_ones(golden, case):
    z, labels, distance = read(golden, case)
    positives, negatives = SoftHard("as-published").candidates(anchor_distances(z, distance), labels)
    assert torch.equal(negatives, golden.tensor(f"{case}/neg_mask"))
    if f"{case}/pos" in golden:
        assert torch.equal(positives.sum(dim=1), torch.ones(len(positives)).long())
        assert torch.equal(positives.int().argmax(dim=1), golden.tensor(f"{case}/pos"))
    else:
        assert torch.equal(positives, golden.tensor(f"{case}/pos_mask"))


@for_each(named("distance"))
def test_distance_weights_equal_the_published_ones(golden, case):
    z, labels, distance = read(golden, case)
    ours = DistanceWeighted(as_published=True).weights(anchor_distances(z, distance), labels, z.shape[1])
    torch.testing.assert_close(ours, golden.tensor(f"{case}/prob"), atol=1e-9, rtol=0)


@for_each(named("hard"))
def test_hardest_negative_equals_the_published_one(golden, case):
    z, labels, distance = read(golden, case)
    ours = Hardest().negatives(anchor_distances(z, distance), labels)
    published = golden.tensor(f"{case}/neg")
    found = published >= 0
    assert torch.equal(ours[found].int().argmax(dim=1), published[found])
    assert (ours[found].sum(dim=1) == 1).all()
    assert ours[~found].all()  # the published miner raises here; ours falls back to any row


@for_each(named("random"))
def test_random_anchors_and_candidates_equal_the_published_ones(golden, case):
    z, labels, distance = read(golden, case)
    triplets = Random()(z, labels, distance, draws=Draws(0), index=torch.arange(len(z)))
    assert torch.equal(triplets.anchor, golden.tensor(f"{case}/anchor"))
    assert torch.equal(triplets.positive, golden.tensor(f"{case}/pos"))
    assert torch.equal(other_class(labels), golden.tensor(f"{case}/neg_mask"))


@for_each(named("lifted"))
def test_lifted_lists_equal_the_published_ones(golden, case):
    z, labels, _ = read(golden, case)
    itself = torch.arange(len(z))[None, :] == anchors_of(labels)[:, None]
    assert torch.equal(same_class(labels) & ~itself, golden.tensor(f"{case}/pos_mask"))
    assert torch.equal(other_class(labels), golden.tensor(f"{case}/neg_mask"))


@for_each(named("npair"))
def test_npair_lists_equal_the_published_ones(golden, case):
    _, labels, _ = read(golden, case)
    assert torch.equal(partner(labels).int().argmax(dim=1), golden.tensor(f"{case}/pos"))
    assert torch.equal(other_class(labels), golden.tensor(f"{case}/neg_mask"))


@for_each(named("random_triplet"))
def test_random_triplets_come_from_the_published_population(golden, case):
    z, labels, distance = read(golden, case)
    published = {tuple(t) for t in golden.tensor(f"{case}/population").tolist()}
    assert {tuple(t) for t in RandomTriplet().population(labels).tolist()} == published
    drawn = RandomTriplet()(z, labels, distance, draws=Draws(0), index=torch.arange(len(z)))
    triplets = torch.stack([drawn.anchor, drawn.positive, drawn.negative], dim=1).tolist()
    assert len(triplets) == golden.number(f"{case}/n_draw")
    assert {tuple(t) for t in triplets} <= published
    if not golden.number(f"{case}/with_replacement") and not golden.number(f"{case}/fallback"):
        assert len({tuple(t) for t in triplets}) == len(triplets)
