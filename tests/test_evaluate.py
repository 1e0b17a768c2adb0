"""Embedding and scoring a data set."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustdml.data.images import ImageSet, Split
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Dot, Euclidean, Leading, Spherical
from robustdml.evaluate import (
    collapse_statistics,
    device_of,
    effective_rank,
    embed_all,
    evaluate,
    images_on,
    own_rows,
)
from robustdml.metrics import retrieval_scores
from robustdml.models import Pixels, SmallConv
from robustdml.models.embedder import Bfloat16, Layers
from tests.toys import SHAPE, blobs, constant, generator, linear, network, unchanged


class Held:
    """Images in memory, of any range."""

    def __init__(self, values):
        self.values, self.shape = values, tuple(values.shape[1:])

    def __len__(self):
        return len(self.values)

    def batch(self, index):
        return self.values[index]

    def fingerprint(self):
        return "held"


def data_of(images, labels, query, gallery):
    train = torch.arange(0)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    return ImageSet("toy", Held(images), labels, Split(train, query, gallery), names)


def toy(query=None):
    images, labels = blobs(spread=0.3)
    rows = torch.arange(60)
    return data_of(images, labels, rows if query is None else query, rows)


def test_own_rows_are_found_by_index_in_any_order():
    gallery = torch.randperm(50, generator=generator()) + 7
    query = gallery[torch.tensor([40, 3, 3, 0])]
    assert own_rows(query, gallery).tolist() == [40, 3, 3, 0]


@pytest.mark.parametrize("query", [[0, 1], [100, 200], [5, 8]])
def test_disjoint_queries_have_no_own_rows(query):
    assert own_rows(torch.tensor(query), torch.tensor([6, 9, 7])) is None


def test_queries_that_are_partly_in_the_gallery_are_refused():
    with pytest.raises(ValueError, match=r"2 of 3 queries are also gallery items\. Make the query set a subset of "
                       r"the gallery, or disjoint from it"):  # fmt: skip
        own_rows(torch.tensor([1, 50, 2]), torch.arange(10))


@pytest.mark.parametrize(("low", "high"), [(-0.01, 1.0), (0.0, 1.01), (0.0, 255.0), (0.0, float("nan"))])
def test_pixels_outside_the_unit_interval_are_refused(low, high):
    images, labels = blobs()
    images[0, 0, 0, :2] = torch.tensor([low, high], dtype=torch.float64)
    data = data_of(images, labels, torch.arange(60), torch.arange(60))
    with pytest.raises(ValueError, match=r"toy: pixels must be in \[0, 1\], found .* … .*\. Divide by the largest "
                       r"value in the data set, and put any mean/std normalisation inside the embedder"):  # fmt: skip
        evaluate(DeepMetric(linear(), Spherical()), data)


def test_rounding_at_the_ends_of_the_unit_interval_is_accepted():
    images, labels = blobs()
    images[0, 0, 0, :2] = torch.tensor([-5e-7, 1 + 5e-7], dtype=torch.float64)
    data = data_of(images, labels, torch.arange(60), torch.arange(60))
    assert torch.equal(images_on(data, torch.arange(3), torch.device("cpu")), images[:3])


@pytest.mark.parametrize("size", [1, 7, 200])
def test_neither_batch_size_nor_order_changes_an_embedding(size):
    metric, data = DeepMetric(network(), Spherical()), toy()
    check, seen = unchanged(metric.embedder), []
    order = torch.randperm(60, generator=generator())
    z = embed_all(metric, data, order, batch=size, progress=seen.append)
    torch.testing.assert_close(z, metric.embed(data.batch(order)), atol=1e-12, rtol=0)
    assert sum(seen) == 60
    assert not z.requires_grad
    check()


def test_a_deep_metric_measures_images():
    metric, images = DeepMetric(network(), Spherical()), blobs()[0]
    expected = Spherical().matrix(metric.embed(images[:3]), metric.embed(images[3:8]))
    assert torch.equal(metric(images[:3], images[3:8]), expected)


def test_an_embedder_without_weights_lives_on_the_cpu():
    assert device_of(DeepMetric(Pixels().build(SHAPE), Spherical())) == torch.device("cpu")
    assert device_of(DeepMetric(linear(), Spherical())) == torch.device("cpu")


def test_an_evaluation_reports_the_metrics_of_its_embeddings():
    metric, data = DeepMetric(network(), Spherical()), toy()
    found = evaluate(metric, data)
    z = metric.embed(data.batch(torch.arange(60)))
    expected = retrieval_scores(Spherical(), z, data.labels, z, data.labels, itself=torch.arange(60)).means()
    assert {k: v for k, v in found.scores.items() if k != "nmi"} == pytest.approx(expected, abs=1e-12)
    assert 0 < found.scores["nmi"] <= 1
    assert (found.queries, found.gallery, found.classes, found.lonely) == (60, 60, 5, 0)
    assert evaluate(metric, data) == found


def test_a_subset_of_queries_is_ranked_against_the_whole_gallery():
    metric, query = DeepMetric(network(), Spherical()), torch.tensor([50, 3])
    found = evaluate(metric, toy(query))
    z, labels = metric.embed(toy().batch(torch.arange(60))), toy().labels
    expected = retrieval_scores(Spherical(), z[query], labels[query], z, labels, itself=query).means()
    assert found.scores["map"] == pytest.approx(expected["map"], abs=1e-12)
    assert (found.queries, found.gallery) == (2, 60)


def test_disjoint_queries_are_embedded_for_themselves():
    images, labels = blobs(spread=0.3)
    even, odd = torch.arange(0, 60, 2), torch.arange(1, 60, 2)
    metric = DeepMetric(network(), Spherical())
    found = evaluate(metric, data_of(images, labels, even, odd))
    z = metric.embed(images)
    expected = retrieval_scores(Spherical(), z[even], labels[even], z[odd], labels[odd]).means()
    assert found.scores["recall@1"] == pytest.approx(expected["recall@1"], abs=1e-12)


def test_a_collapsed_network_scores_nothing_and_its_statistics_say_so():
    found = evaluate(DeepMetric(constant(), Spherical()), toy())
    assert found.scores["recall@1"] == 0
    zero = pytest.approx(0, abs=1e-3)
    assert found.embedding == {"mean_distance": zero, "spread": zero, "effective_rank": 0}


def test_a_class_of_one_image_is_counted():
    data = toy()
    labels = data.labels.clone()
    labels[0] = 5
    named = replace(data, labels=labels, class_names=tuple("abcdef"))
    assert evaluate(DeepMetric(linear(), Spherical()), named).lonely == 1


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-8, 1e6])
def test_a_point_has_effective_rank_zero(value):
    assert effective_rank(torch.full((50, 8), value)) == 0


def test_a_line_has_effective_rank_one():
    z = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 8) + 3
    assert effective_rank(z) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_isotropic_data_has_nearly_full_effective_rank(d, scale):
    z = scale * torch.randn(4000, d, generator=generator())
    assert 0.99 * d < effective_rank(z) <= d * (1 + 1e-6)


def test_effective_rank_is_the_exponential_of_an_entropy():
    z = torch.randn(30, 4, generator=generator(), dtype=torch.float64)
    share = torch.linalg.svdvals(z - z.mean(dim=0))
    share = share / share.sum()
    assert effective_rank(z) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share.tolist())))


@pytest.mark.parametrize("distance", [Spherical(), Euclidean(), Dot()], ids=repr)
def test_the_mean_distance_is_that_of_different_items(distance):
    z = torch.randn(20, 4, generator=generator())
    d = [float(distance.matrix(z[[i]], z[[j]])) for i in range(20) for j in range(20) if i != j]
    found = collapse_statistics(DeepMetric(linear(), distance), z)["mean_distance"]
    assert found == pytest.approx(sum(d) / len(d), rel=1e-4)


def test_class_scores_beside_an_embedding_do_not_hide_its_collapse():
    z = torch.randn(20, 4, generator=generator())
    packed = torch.cat([z, 100 * torch.randn(20, 3, generator=generator(1))], dim=1)
    found = collapse_statistics(DeepMetric(linear(), Leading(4, Euclidean())), packed)
    assert found == pytest.approx(collapse_statistics(DeepMetric(linear(), Euclidean()), z))


def test_a_network_that_yields_nan_is_refused():
    broken = Layers(6, nn.Flatten(), nn.Linear(16, 6)).double()
    with torch.no_grad():
        broken.layers[1].bias[2] = float("nan")
    with pytest.raises(ValueError, match="60 of 60 embeddings are NaN or infinite"):
        evaluate(DeepMetric(broken, Spherical()), toy())


def test_what_is_scored_is_embedded_in_float32_whatever_the_adversary_runs_in():
    torch.manual_seed(0)
    exact = SmallConv(8).build((1, 8, 8)).eval()
    images = torch.rand(5, 1, 8, 8)
    rough = DeepMetric(Bfloat16(exact), Spherical())
    assert not torch.equal(rough.embedder(images), exact(images))
    assert torch.equal(rough.embed(images), DeepMetric(exact, Spherical()).embed(images))
