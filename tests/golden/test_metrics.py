"""Published metrics: distances, ranks, precisions, NMI and ERS."""

import numpy as np
import torch

from robustdml.distance import Euclidean
from robustdml.metrics import average_precision, cluster, nmi, ranking_matches, retrieval_scores
from robustdml.score import ers, normalised
from tests.golden.cases import DISTANCE, for_each

FILE = "metrics"
COVERS = [r"[a-z]/", r"nmi/", r"kmeans/", r"ers/"]


def instances(golden):
    return sorted({k.split("/")[0] for k in golden.arrays if k.endswith("/emb_raw")})


def read(golden, case):
    z, labels = golden.tensor(f"{case}/emb_raw"), golden.tensor(f"{case}/labels")
    return z, labels, DISTANCE[str(golden.arrays[f"{case}/metric"])]


def scores(golden, case):
    z, labels, distance = read(golden, case)
    return retrieval_scores(distance, z, labels, z, labels, itself=torch.arange(len(z)))


@for_each(instances)
def test_distances_equal_the_published_ones(golden, case):
    z, _, distance = read(golden, case)
    off_diagonal = ~torch.eye(len(z), dtype=torch.bool)
    ours = distance.matrix(z, z)
    for key in ("dist", "pdist"):
        published = golden.tensor(f"{case}/{key}")
        torch.testing.assert_close(ours[off_diagonal], published[off_diagonal], atol=1e-9, rtol=0)


@for_each(instances)
def test_ranks_and_recalls_equal_the_published_ones(golden, case):
    found = scores(golden, case)
    assert torch.equal(found.first.long(), golden.tensor(f"{case}/rank"))
    for k, recall in zip(golden.arrays[f"{case}/ks"], golden.arrays[f"{case}/recall_at_k"], strict=True):
        assert float(found.recall_at(int(k)).mean()) == recall
    assert abs(float(found.first.mean()) - golden.number(f"{case}/rM")) < 1e-9
    hits = found.recall_at(1)
    assert float(hits.mean()) == golden.number(f"{case}/recall1_exact")
    of_batches = torch.stack([b.mean() for b in hits.split(golden.number(f"{case}/batch_size"))]).mean()
    assert abs(float(of_batches) - golden.number(f"{case}/recall1_mean_of_batch_means")) < 1e-6


@for_each(instances)
def test_average_precisions_equal_the_published_ones(golden, case):
    found = scores(golden, case)
    torch.testing.assert_close(found.ap, golden.tensor(f"{case}/ap"), atol=2e-7, rtol=0)
    assert abs(float(found.ap.mean()) - golden.number(f"{case}/map")) < 2e-7
    z, labels, distance = read(golden, case)
    matches = ranking_matches(distance, z, labels, z, labels, itself=torch.arange(len(z)))
    for column, r in enumerate(golden.arrays[f"{case}/rs"].tolist()):
        ours = average_precision(matches, r)
        np.testing.assert_allclose(ours, golden.arrays[f"{case}/ap_at_r"][:, column], atol=2e-7)
        assert abs(ours.mean() - golden.arrays[f"{case}/map_at_fixed_r"][column]) < 2e-7
        if r == 10:
            np.testing.assert_allclose(found.ap_at_10, ours, atol=1e-12)


@for_each(instances)
def test_standard_definitions_equal_those_of_pytorch_metric_learning(golden, case):
    """Upstream's library counts in float32 at places, hence 1e-7 where its own value of the mean AP departs by that."""
    means = scores(golden, case).means()
    for ours, theirs in (("recall@1", "precision_at_1"), ("r_precision", "r_precision")):
        assert abs(means[ours] - golden.number(f"{case}/pml_{theirs}")) < 1e-9
    for ours, theirs in (("map_at_r", "mean_average_precision_at_r"), ("map", "mean_average_precision")):
        assert abs(means[ours] - golden.number(f"{case}/pml_{theirs}")) < 1e-9


@for_each(lambda golden: golden.under("nmi/"))
def test_nmi_equals_the_published_one(golden, case):
    ours = nmi(golden.tensor(f"nmi/{case}/labels"), golden.tensor(f"nmi/{case}/assign"))
    assert abs(ours - golden.number(f"nmi/{case}/nmi")) < 1e-12


def test_clustering_reaches_the_published_nmi(golden):
    z, labels = golden.tensor("kmeans/emb"), golden.tensor("kmeans/labels")
    ours = nmi(labels, cluster(z, golden.number("kmeans/ncls"), Euclidean()))
    assert abs(ours - golden.number("kmeans/nmi")) <= 0.05


def test_score_equals_the_published_one(golden):
    columns = golden.strings("ers/columns")
    for raw, components, total, printed in zip(
        golden.arrays["ers/raw"],
        golden.arrays["ers/normalised"],
        golden.arrays["ers/ers"],
        golden.strings("ers/printed"),
        strict=True,
    ):
        ours = {name: normalised(name, value) for name, value in zip(columns, raw.tolist(), strict=True)}
        np.testing.assert_allclose([ours[c] for c in columns], components, atol=1e-12)
        assert abs(ers(ours) - total) < 1e-12
        assert f"{ers(ours):.1f}" == printed
