"""What a retrieval system shows to an attacker."""

import pytest
import torch

from robustdml.attacks import RetrievalSystem
from robustdml.distance import DISTANCES, Euclidean, Spherical
from robustdml.metrics import retrieval_scores
from robustdml.ranking import Gallery
from tests.toys import blobs, constant, linear, scene_of

ALL = pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)


@pytest.mark.parametrize(("n", "topmost"), [(2, 1), (11, 1), (199, 1), (200, 2), (1999, 19), (2000, 20)])
def test_the_head_is_a_hundredth_of_the_gallery_and_at_least_one_item(n, topmost):
    system = RetrievalSystem(Euclidean(), Gallery(torch.zeros(n, 2), torch.zeros(n, dtype=torch.long)))
    assert system.topmost == topmost


@ALL
@pytest.mark.parametrize("inside", [True, False])
def test_the_head_holds_the_nearest_others_in_order(distance, inside):
    images, labels = blobs()
    rows = torch.tensor([3, 50, 17])
    _, scene = scene_of(linear(), distance, images, labels, rows, inside)
    others = scene.distances.clone()
    if inside:
        others[torch.arange(3), rows] = torch.inf
    assert torch.equal(scene.head(10), others.argsort(dim=1)[:, :10])
    assert torch.equal(scene.nearest, scene.head(10)[:, :1])  # 1 % of 60
    expected = distance.matrix(scene.clean, scene.gallery.z)
    torch.testing.assert_close(scene.distances, expected, atol=1e-7, rtol=0)  # sqrt of rounding at distance 0


def test_an_image_is_kept_out_of_its_own_head_by_row_not_by_distance():
    images, labels = blobs()
    images[1] = images[0]
    _, scene = scene_of(linear(), Spherical(), images, labels)
    assert bool((scene.nearest != scene.itself[:, None]).all())
    assert scene.nearest[:2, 0].tolist() == [1, 0]


@ALL
@pytest.mark.parametrize("k", [1, 2, 7, 59])
def test_recall_is_that_of_the_evaluation(distance, k):
    images, labels = blobs(spread=0.4)
    _, scene = scene_of(linear(), distance, images, labels)
    scores = retrieval_scores(distance, scene.clean, labels, scene.gallery.z, labels, itself=scene.itself)
    assert torch.equal(scene.recall(scene.clean, k), scores.recall_at(k))


def test_recall_is_not_defined_for_a_class_of_one_image():
    images, labels = blobs()
    labels[7] = 70
    _, scene = scene_of(linear(), Spherical(), images, labels)
    recall = scene.recall(scene.clean)
    assert recall.isnan().nonzero().tolist() == [[7]]


def test_recall_is_not_defined_for_a_query_whose_class_the_gallery_lacks():
    images, labels = blobs()
    labels[7] = 70
    _, scene = scene_of(linear(), Spherical(), images, labels, torch.tensor([7, 8]), inside=False)
    assert scene.recall(scene.clean).isnan().tolist() == [True, False]


@ALL
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_embedding_has_no_recall(distance, value):
    images, labels = blobs()
    _, scene = scene_of(constant(value=value), distance, images, labels)
    for k in (1, 10, 40):
        assert float(scene.recall(scene.clean, k).sum()) == 0


def test_the_own_row_can_be_replaced_in_any_table():
    images, labels = blobs()
    _, scene = scene_of(linear(), Spherical(), images, labels, torch.tensor([4, 9]))
    assert bool(scene.same_class[[0, 1], [4, 9]].all())
    assert not bool(scene.without_itself(scene.same_class, False)[[0, 1], [4, 9]].any())
    assert int(scene.same_class.sum()) == 24


def test_a_scene_of_some_images_is_theirs_and_of_all_is_the_same_tables():
    images, labels = blobs()
    _, scene = scene_of(linear(), Spherical(), images, labels, torch.tensor([4, 9, 30]))
    part = scene.of(torch.tensor([2, 2, 0]))
    assert part.itself.tolist() == [30, 30, 4]
    assert torch.equal(part.recall(part.clean), scene.recall(scene.clean)[[2, 2, 0]])
    assert scene.of(torch.arange(3)).distances is scene.distances


def test_a_longer_head_continues_the_ranking():
    images, labels = blobs()
    _, scene = scene_of(linear(), Spherical(), images, labels, torch.tensor([4, 9, 30]))
    assert scene.head(1) is scene.nearest
    assert scene.head(7).shape == (3, 7)
    assert torch.equal(scene.head(25)[:, :7], scene.head(7))
    whole = scene.head(1000)
    assert whole.shape == (3, 59)
    assert bool((whole != scene.itself[:, None]).all())


def test_rankings_are_made_once_for_the_same_aims_and_go_with_them():
    images, labels = blobs()
    _, scene = scene_of(linear(), Spherical(), images, labels, torch.tensor([4, 9, 30]))
    aims = torch.tensor([[1], [2], [3]])
    assert scene.rankings(aims) is scene.rankings(aims)
    assert scene.rankings(aims.clone()) is not scene.rankings(aims)
    assert len(scene._rankings) == 1
    del aims
    assert len(scene._rankings) == 0
