"""Goals of attackers: whom they aim at, what they minimise, what they report."""

import math

import pytest
import torch

from robustdml.adversary import Adversary, Linf, Pgd, Universal
from robustdml.attacks import GOALS, Attack, RetrievalSystem
from robustdml.attacks.goals import (
    Agnostic,
    Candidate,
    DynamicWeight,
    EmbeddingShift,
    FixedWeight,
    LeaveClass,
    Misclassify,
    Mismatch,
    Misrank,
    Order,
    PreservingOrder,
    PreservingQuery,
    Query,
    TargetedMismatch,
    TopOut,
)
from robustdml.attacks.goals.preserving import kappa_of
from robustdml.deep_metric import DeepMetric
from robustdml.distance import DISTANCES, Cosine, Dot, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.metrics import retrieval_scores
from robustdml.models.embedder import Layers
from robustdml.models.normalise import imagenet
from robustdml.ranking import Gallery
from tests.toys import blobs, constant, generator, linear, network, scene_of, unchanged

INSTANCES = [
    *(kind(direction, count, unique) for kind in (Candidate, Query) for direction in ("raise", "lower")
      for count, unique in ((1, False), (3, False), (3, True))),
    *(TargetedMismatch(), TargetedMismatch(unique=True), EmbeddingShift(), Misrank(), Misrank("included")),
    *(Misrank(pulled="nearest"), LeaveClass()),
    *(Mismatch(), Mismatch("as-published"), TopOut()),
    *(kind(direction, 2, True, "distance") for kind in (Candidate, Query) for direction in ("raise", "lower")),
    *(kind(direction, 2, True, sampling=sampling) for kind in (Candidate, Query)
      for direction, sampling in (("raise", "local"), ("lower", "visual"))),
    *(PreservingQuery(direction, count, unique, FixedWeight(3.0)) for direction in ("raise", "lower")
      for count, unique in ((1, True), (2, False))),
    *(PreservingQuery("raise", weight=DynamicWeight(2.0, "image")), PreservingQuery("lower", 2, objective="distance",
      weight=FixedWeight())),
    *(Order(), Order(4), Order(3, "pairs"), PreservingOrder(weight=FixedWeight()),
      PreservingOrder(3, weight=DynamicWeight(2.0, "image"))),
]  # fmt: skip
ELSEWHERE = {Misclassify, Agnostic}  # these need another gallery, or blocks: see their own tests
PLAIN = [g for g in INSTANCES if isinstance(g, (Candidate, Query)) and g.sampling == "usual"]
EVERY = pytest.mark.parametrize("goal", INSTANCES, ids=repr)
ALL = pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)
INSIDE = pytest.mark.parametrize("inside", [True, False], ids=["own copy in gallery", "disjoint"])
UPPER = {Candidate: "raise", Query: "raise"}
ROWS = torch.tensor([3, 17, 50, 4, 31])


def toy(distance=Spherical(), inside=True, rows=ROWS, embedder=None):  # noqa: B008 (frozen)
    images, labels = blobs()
    embedder = linear() if embedder is None else embedder
    metric, scene = scene_of(embedder, distance, images, labels, rows, inside)
    return metric, scene, images[rows]


def choose(goal, scene, index=ROWS, seed=0):
    return goal.choose(scene, draws=Draws(seed), index=index)


def attacked(goal, metric, scene, images, eps=0.1, steps=6, index=ROWS, search=None):
    adversary = Adversary(Linf(eps), search or Pgd(steps, 2 * eps / steps))
    return Attack(goal, adversary)(metric, scene, images, draws=Draws(0), index=index)


def test_every_goal_of_the_library_is_tested():
    assert {type(goal) for goal in INSTANCES} == set(GOALS.values()) - ELSEWHERE


# ---- aims


@EVERY
@INSIDE
def test_aims_are_gallery_rows_and_depend_on_nothing_but_the_image(goal, inside):
    _, scene, _ = toy(inside=inside)
    aims = choose(goal, scene)
    assert aims.dtype == torch.int64
    assert len(aims) == len(ROWS)
    assert aims.numel() == 0 or 0 <= int(aims.min()) <= int(aims.max()) < scene.size
    assert torch.equal(aims, choose(goal, scene))
    if inside:
        _, part, _ = toy(rows=ROWS[[2]])
        assert torch.equal(choose(goal, part, ROWS[[2]]), aims[[2]])


@pytest.mark.parametrize("goal", PLAIN, ids=repr)
@INSIDE
def test_rank_attacks_aim_anywhere_or_at_the_head(goal, inside):
    _, scene, _ = toy(inside=inside)
    drawn = torch.stack([choose(goal, scene, seed=s) for s in range(200)], dim=1)  # [b 200 m]
    count = goal.queries if isinstance(goal, Candidate) else goal.candidates
    assert drawn.shape[2] == count
    own = scene.itself[:, None, None] if inside else torch.tensor(-1)
    for image in range(len(ROWS)):
        seen = set(drawn[image].flatten().tolist())
        if goal.direction == "lower":
            assert seen == set(scene.head(goal.from_head)[image].tolist())
        else:
            assert len(seen) > 0.9 * scene.size
    if goal.direction == "lower" or goal.unique:
        assert bool((drawn != own).all())
    if goal.unique or (isinstance(goal, Query) and goal.direction == "lower"):
        assert all(len(row.unique()) == count for row in drawn.flatten(0, 1))


def test_published_draws_may_repeat_and_hit_the_image_itself():
    _, scene, _ = toy()
    drawn = torch.stack([choose(Candidate("raise", 3), scene, seed=s) for s in range(300)])
    assert bool((drawn == scene.itself[:, None]).any())
    assert any(len(row.unique()) < 3 for row in drawn.flatten(0, 1))


@pytest.mark.parametrize("unique", [True, False])
def test_mismatch_aims_at_any_item_and_if_unique_at_any_other(unique):
    _, scene, _ = toy()
    drawn = torch.stack([choose(TargetedMismatch(unique), scene, seed=s) for s in range(400)])
    assert bool((drawn == scene.itself[:, None]).any()) != unique
    assert len(drawn.unique()) == scene.size


@INSIDE
def test_greedy_goals_aim_at_the_nearest_of_their_kind(inside):
    _, scene, _ = toy(inside=inside)
    wrong, top = choose(Mismatch(), scene), choose(TopOut(), scene)
    for i in range(len(ROWS)):
        others = [n for n in range(scene.size) if not inside or n != int(ROWS[i])]
        nearest = sorted(others, key=lambda n: float(scene.distances[i, n]))
        assert int(top[i]) == nearest[0]
        assert int(wrong[i]) == next(n for n in nearest if scene.gallery.labels[n] != scene.labels[i])


def test_the_published_greedy_target_is_a_place_among_unlike_items():
    _, scene, _ = toy()
    aims = choose(Mismatch("as-published"), scene)
    for i in range(len(ROWS)):
        label = scene.gallery.labels[scene.nearest[i, 0]]
        unlike = [n for n in range(scene.size) if scene.gallery.labels[n] != label]
        nearest = min(unlike, key=lambda n: float(scene.distances[i, n]))
        assert int(aims[i, 0]) == unlike.index(nearest)


@pytest.mark.parametrize("goal", [EmbeddingShift(), Misrank()], ids=repr)
def test_untargeted_goals_have_no_aims(goal):
    assert choose(goal, toy()[1]).shape == (len(ROWS), 0)


@pytest.mark.parametrize(("goal", "message"), [
    (Query("lower", 60), "60 targets cannot be drawn from the 59 nearest of a gallery of 60 items. Use fewer targets"),
    (Query("raise", 60, unique=True), "60 different targets cannot be drawn from 59 other gallery items. Use fewer"),
    (Candidate("raise", 60, unique=True), "60 different targets cannot be drawn from 59 other gallery items"),
], ids=repr)  # fmt: skip
def test_more_targets_than_the_gallery_has_are_refused(goal, message):
    with pytest.raises(ValueError, match=message):
        choose(goal, toy()[1])


# ---- energies


def hinge(x):
    return torch.relu(x)


def gradient_of(energy, z, rows):
    z = z.clone().requires_grad_()
    value = energy(z, rows, 1)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def compare(energy, literal, z):
    rows = torch.arange(len(z))
    for found, expected in zip(gradient_of(energy, z, rows), gradient_of(literal, z, rows)):
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


def moved(scene):
    return scene.clean + 0.3 * torch.randn(scene.clean.shape, generator=generator(9), dtype=torch.float64)


@ALL
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_the_closed_form_of_the_candidate_attack_is_the_double_sum(distance, direction):
    _, scene, _ = toy(distance)
    aims = torch.tensor([[5, 9], [7, 7], [2, 50], [4, 4], [59, 59]])  # twice the same query; its own clean copy
    z = moved(scene)
    if distance != Dot():  # coincides with a query: a tie, whose gradient is 0 only for distances with a minimum
        z[4] = scene.gallery.z[59]

    def literal(z, unit, step):
        rows = []
        for e, queries in zip(z, aims[unit].tolist()):
            total = 0.0
            for q in queries:
                d = distance.matrix(scene.gallery.z[[q]], torch.cat([e[None], scene.gallery.z]))[0]
                for other in d[1:]:
                    total = total + hinge(d[0] - other if direction == "raise" else other - d[0])
            rows.append(total / (2 * scene.size))
        return torch.stack(rows)

    compare(Candidate(direction, 2).energy(scene, aims), literal, z)


@ALL
@pytest.mark.parametrize("direction", ["raise", "lower"])
def test_the_weighted_sum_of_the_query_attack_is_the_double_sum(distance, direction):
    _, scene, _ = toy(distance)
    aims = torch.tensor([[5, 9], [7, 7], [2, 50], [4, 4], [0, 59]])

    def literal(z, unit, step):
        rows = []
        for e, candidates in zip(z, aims[unit].tolist()):
            d = distance.matrix(e[None], scene.gallery.z)[0]
            terms = [d[c] - d if direction == "raise" else d - d[c] for c in candidates]
            rows.append(sum(hinge(t).sum() for t in terms) / (2 * scene.size))
        return torch.stack(rows)

    compare(Query(direction, 2).energy(scene, aims), literal, moved(scene))


@ALL
@pytest.mark.parametrize("own_copy", ["excluded", "included"])
def test_misranking_is_the_hinge_between_farthest_other_and_nearest_same(distance, own_copy):
    _, scene, _ = toy(distance)

    def literal(z, unit, step):
        rows = []
        for i, e in zip(unit.tolist(), z):
            d = distance.matrix(e[None], scene.gallery.z)[0]
            same = scene.gallery.labels == scene.labels[i]
            positive = [d[n] for n in same.nonzero()[:, 0] if own_copy == "included" or n != scene.itself[i]]
            rows.append(hinge(d[~same].max() - torch.stack(positive).min()))
        return torch.stack(rows)

    compare(Misrank(own_copy).energy(scene, choose(Misrank(), scene)), literal, moved(scene))


@ALL
def test_targeted_energies_are_distances_to_the_target(distance):
    _, scene, _ = toy(distance)
    z, unit = moved(scene), torch.arange(len(ROWS))
    for goal, by in ((Mismatch(), distance), (TargetedMismatch(), Cosine())):
        aims = choose(goal, scene)
        expected = torch.stack([by.pairs(z[i], scene.gallery.z[aims[i, 0]]) for i in unit])
        torch.testing.assert_close(goal.energy(scene, aims)(z, unit, 3), expected)


@EVERY
@ALL
def test_an_energy_gives_every_row_the_value_of_its_unit(goal, distance):
    _, scene, _ = toy(distance)
    energy = goal.energy(scene, choose(goal, scene))
    unit = torch.tensor([4, 0, 0, 2])
    z = moved(scene)
    for step in (0, 1):
        whole = energy(z, torch.arange(5), step)
        torch.testing.assert_close(energy(z[unit], unit, step), whole[unit], atol=1e-12, rtol=0)
        alone = torch.cat([energy(z[[u]], torch.tensor([u]), step) for u in range(5)])
        torch.testing.assert_close(alone, whole, atol=1e-12, rtol=0)


# ---- scores


@EVERY
@INSIDE
@ALL
def test_no_budget_changes_nothing(goal, inside, distance):
    metric, scene, images = toy(distance, inside)
    outcome = attacked(goal, metric, scene, images, eps=0.0)
    assert torch.equal(outcome.images, images)
    assert outcome.before.keys() == outcome.after.keys()
    for name in outcome.before.keys() - {"shift"}:
        assert torch.equal(outcome.before[name], outcome.after[name])
    if distance != Dot():  # a "shift" in inner products does not vanish
        assert float(outcome.after["shift"].max()) <= 2e-6 * metric.embedder.dim**0.5


@EVERY
@ALL
def test_no_radius_changes_nothing(goal, distance):
    metric, scene, images = toy(distance)
    outcome = Attack(goal, Adversary(Linf(0.0), Pgd(2, 0.1)))(metric, scene, images, draws=Draws(0), index=ROWS)
    assert torch.equal(outcome.images, images)


@pytest.mark.parametrize("distance", [Spherical(), Euclidean(), Cosine(), Dot()], ids=repr)
@INSIDE
def test_a_constant_embedding_loses_every_tie(distance, inside):
    metric, scene, images = toy(distance, inside, embedder=constant())
    expected = {"recall@1": 0, "recall@10": 0, "cosine": 1, "retain@1": 0, "retain@4": 0}
    expected |= {"swapped": 1, "tau": 1, "preserved_prank": 0}
    for goal in INSTANCES:
        outcome = attacked(goal, metric, scene, images)
        prank = {"raise": 0, "lower": 1}.get(getattr(goal, "direction", ""))
        for scores in (outcome.before, outcome.after):
            for name, values in scores.items():
                if name != "shift":
                    wanted = prank if name == "prank" else expected[name]
                    torch.testing.assert_close(values.double(), torch.full((5,), float(wanted)).double())


@pytest.mark.parametrize("direction", ["raise", "lower"])
@ALL
def test_percentile_ranks_are_places_in_a_full_sort(distance, direction):
    _, scene, _ = toy(distance, inside=False)  # without own copies nothing is tied
    aims = torch.tensor([[5, 9], [7, 8], [2, 50], [4, 3], [0, 54]])
    z, n = moved(scene), scene.size
    places = distance.matrix(z, scene.gallery.z).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    expected = places.gather(1, aims).double().mean(dim=1) / n
    torch.testing.assert_close(Query(direction, 2).score(scene, aims)(z)["prank"], expected)
    counted = []
    for e, queries in zip(z, aims):
        d = distance.matrix(scene.gallery.z[queries], scene.gallery.z)
        own = distance.matrix(scene.gallery.z[queries], e[None])
        counted.append(float((d < own).sum(dim=1).double().mean()) / n)
    found = Candidate(direction, 2).score(scene, aims)(z)["prank"]
    torch.testing.assert_close(found, torch.tensor(counted, dtype=torch.float64))


def test_the_own_clean_copy_does_not_come_before_the_candidate():
    _, scene, _ = toy()
    aims = scene.head(2)[:, 1:]
    d = scene.distance.matrix(scene.gallery.z[aims[:, 0]], scene.gallery.z)
    place = torch.tensor([int((row < row[own]).sum()) for row, own in zip(d, scene.itself)])
    for direction in ("raise", "lower"):
        found = Candidate(direction).score(scene, aims)(scene.clean)["prank"] * scene.size
        torch.testing.assert_close(found, place.double())


@pytest.mark.parametrize("distance", [Spherical(), Euclidean(), Cosine()], ids=repr)
@INSIDE
def test_the_clean_top_item_is_retained_before_the_attack(distance, inside):
    metric, scene, images = toy(distance, inside)
    before = attacked(TopOut(), metric, scene, images).before
    assert before["retain@1"].tolist() == before["retain@4"].tolist() == [1] * 5


@ALL
@INSIDE
@pytest.mark.parametrize("goal", [EmbeddingShift(), Mismatch(), Misrank()], ids=repr)
def test_recall_before_the_attack_is_that_of_the_evaluation(goal, distance, inside):
    metric, scene, images = toy(distance, inside)
    gallery = scene.gallery
    scores = retrieval_scores(distance, scene.clean, scene.labels, gallery.z, gallery.labels, itself=scene.itself)
    before = attacked(goal, metric, scene, images).before
    assert torch.equal(before["recall@1"], scores.recall_at(1))
    for name in before.keys() & {"recall@10", "recall@100"}:
        assert torch.equal(before[name], scores.recall_at(int(name.removeprefix("recall@"))))


# ---- attacks as a whole

DEFEATED = [
    (Candidate("raise"), "prank", 0), (Candidate("lower"), "prank", 1), (Query("raise"), "prank", 0),
    (Query("lower"), "prank", 1), (TargetedMismatch(), "cosine", 1), (EmbeddingShift(), "recall@1", 0),
    (Misrank(), "recall@1", 0), (Mismatch(), "recall@1", 0), (TopOut(), "retain@4", 0),
    (Misrank(pulled="nearest"), "recall@1", 0), (LeaveClass(), "recall@1", 0),
    (Order(), "swapped", 1), (Candidate("raise", objective="distance"), "prank", 0),
]  # fmt: skip


@pytest.mark.parametrize(("goal", "name", "worst"), DEFEATED, ids=repr)
def test_an_undefended_network_falls_to_a_large_budget(goal, name, worst):
    metric, scene, images = toy()
    outcome = attacked(goal, metric, scene, images, eps=1.0, steps=80)
    before, after = (float(scores[name].mean()) for scores in (outcome.before, outcome.after))
    assert abs(after - worst) < 0.1
    assert abs(after - worst) < abs(before - worst)


@EVERY
@pytest.mark.parametrize("distance", [Spherical(), Euclidean()], ids=repr)
def test_the_energy_falls(goal, distance):
    metric, scene, images = toy(distance)
    outcome = attacked(goal, metric, scene, images)
    energy, unit = goal.energy(scene, outcome.aims), torch.arange(len(ROWS))
    before, after = energy(scene.clean, unit, 1), energy(metric.embed(outcome.images), unit, 1)
    assert float(after.sum()) < float(before.sum())


@EVERY
def test_an_attack_leaves_the_network_as_it_was_found(goal):
    images, labels = blobs()
    embedder = network()
    metric, scene = scene_of(embedder, Spherical(), images, labels, ROWS)
    check = unchanged(embedder)
    attacked(goal, metric, scene, images[ROWS])
    check()


@EVERY
def test_a_batch_of_one_gives_what_the_whole_batch_gives(goal):
    metric, scene, images = toy(embedder=network())
    whole = attacked(goal, metric, scene, images)
    for i in range(len(ROWS)):
        _, part, image = toy(embedder=metric.embedder, rows=ROWS[[i]])
        alone = attacked(goal, metric, part, image, index=ROWS[[i]])
        torch.testing.assert_close(alone.images, whole.images[[i]], atol=1e-12, rtol=0)
        assert torch.equal(alone.aims, whole.aims[[i]])
        for name in whole.after.keys() - {"shift", "cosine"}:
            torch.testing.assert_close(alone.after[name], whole.after[name][[i]], atol=0, rtol=0, equal_nan=True)


@EVERY
def test_permuting_the_gallery_only_renames_its_rows(goal):
    metric, scene, images = toy()
    order = torch.randperm(scene.size, generator=generator())
    place = order.argsort()
    shuffled = type(scene.system)(scene.distance, Gallery(scene.gallery.z[order], scene.gallery.labels[order]))
    other = shuffled.scene(scene.clean, scene.labels, place[scene.itself])
    aims = choose(goal, scene)
    of_rows = isinstance(goal, TargetedMismatch) or getattr(goal, "direction", "") == "raise"  # drawn by row number
    if not of_rows and goal != Mismatch("as-published"):
        assert torch.equal(order[choose(goal, other)], aims)
    adversary = Adversary(Linf(0.1), Pgd(6, 0.03))
    found, expected = (
        adversary(metric.embedder, images, goal.energy(s, a), draws=Draws(0), index=ROWS)
        for s, a in ((other, place[aims]), (scene, aims))
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    z = metric.embed(expected)
    scores, renamed = goal.score(scene, aims)(z), goal.score(other, place[aims])(z)
    for name in scores:
        torch.testing.assert_close(renamed[name], scores[name], atol=1e-12, rtol=0)


@EVERY
@pytest.mark.parametrize(
    "case", ["three items", "lonely query", "duplicates", "duplicates of another class", "one class"]
)
def test_degenerate_galleries_give_finite_attacks(goal, case):
    images, labels = blobs()
    rows = ROWS
    if case == "three items":
        rows = torch.tensor([0, 1, 2])
        images, labels = images[[0, 1, 20]], labels[[0, 1, 20]]
    elif case == "lonely query":
        labels[ROWS[0]] = 70
    elif case.startswith("duplicates"):
        images, labels = images.repeat(2, 1, 1, 1), torch.cat([labels, labels + 100 * case.endswith("class")])
    else:
        labels = torch.zeros_like(labels)
    metric, scene = scene_of(linear(), Spherical(), images, labels, rows)
    try:
        outcome, refused = attacked(goal, metric, scene, images[rows], index=rows), ""
    except ValueError as error:
        refused = str(error)
    if refused:
        wanted = getattr(goal, "queries", getattr(goal, "candidates", 1)) + (1 if hasattr(goal, "preserved") else 0)
        assert case == "three items"
        assert wanted > 2 or getattr(goal, "sampling", "") == "local"
        assert "larger gallery" in refused
        return
    assert bool(torch.isfinite(outcome.images).all())
    for scores in (outcome.before, outcome.after):
        for name, values in scores.items():
            undefined = values.isnan()
            if name.startswith("recall") and case in ("lonely query", "three items"):
                same = scene.without_itself(scene.same_class, False).any(dim=1)
                assert torch.equal(undefined, ~same)
            else:
                assert not bool(undefined.any())
            low = -1e-12 if name not in ("cosine", "tau") else -1 - 1e-12
            assert name == "shift" or bool(((values >= low) & (values <= 1 + 1e-12))[~undefined].all())
    if case == "duplicates of another class":
        for name in outcome.before.keys() & {"recall@1"}:
            assert float(outcome.before[name].sum()) == 0


def test_misranking_leaves_a_query_without_its_class_alone():
    images, labels = blobs()
    labels[ROWS[0]] = 70
    metric, scene = scene_of(linear(), Spherical(), images, labels, ROWS)
    outcome = attacked(Misrank(), metric, scene, images[ROWS])
    assert torch.equal(outcome.images[0], images[ROWS[0]])
    assert not torch.equal(outcome.images[1], images[ROWS[1]])


@pytest.mark.parametrize(("goal", "name", "best"), [
    (EmbeddingShift(), "recall@1", 0), (Misrank(), "recall@1", 0), (Mismatch(), "recall@1", 0),
    (TopOut(), "retain@4", 0), (Misrank(pulled="nearest"), "recall@1", 0), (LeaveClass(), "recall@1", 0),
], ids=repr)  # fmt: skip
def test_a_greedy_goal_is_achieved_when_its_score_is_zero(goal, name, best):
    metric, scene, images = toy()
    for eps in (0.0, 0.05, 0.5):
        outcome = attacked(goal, metric, scene, images, eps=eps)
        achieved = goal.achieved(scene, outcome.aims)(metric.embed(outcome.images), torch.arange(5))
        assert torch.equal(achieved, outcome.after[name] == best)


@EVERY
@INSIDE
def test_what_is_achieved_is_said_of_rows_in_any_order_and_as_often_as_asked(goal, inside):
    metric, scene, images = toy(inside=inside)
    z = attacked(goal, metric, scene, images, eps=0.4, steps=20).images
    z = torch.where(torch.arange(5)[:, None] % 2 == 0, metric.embed(z), scene.clean)  # some attacked, some not
    achieved = goal.achieved(scene, choose(goal, scene))
    whole = achieved(z, torch.arange(5))
    assert whole.dtype == torch.bool
    assert whole.shape == (5,)
    unit = torch.tensor([4, 0, 0, 2, 3, 4, 1])
    assert torch.equal(achieved(z[unit], unit), whole[unit])
    assert torch.equal(achieved(z[[3]], torch.tensor([3])), whole[[3]])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_query_goal_is_achieved_when_its_candidates_share_the_end_of_the_ranking(count):
    _, scene, _ = toy(Euclidean(), inside=False)
    ranking = scene.distances.argsort(dim=1)
    unit = torch.arange(5)
    for direction, aims, spoilt in (
        ("raise", ranking[:, :count], ranking[:, [*range(1, count), count]]),
        ("lower", ranking[:, -count:], ranking[:, [*range(-count, -1), -count - 1]]),
    ):
        goal = Query(direction, count)
        assert bool(goal.achieved(scene, aims)(scene.clean, unit).all())
        assert not bool(goal.achieved(scene, spoilt)(scene.clean, unit).any())


def test_a_candidate_goal_is_achieved_only_when_all_queries_rank_it_so():
    _, scene, _ = toy(Euclidean(), inside=False)
    goal = Candidate("raise", 2)
    first = torch.tensor([[7, 7]]).expand(5, 2)
    z = scene.gallery.z[[7] * 5]
    unit = torch.arange(5)
    assert bool(goal.achieved(scene, first)(z, unit).all())
    d = scene.distance.matrix(scene.gallery.z, scene.gallery.z)
    second = int(d[7].argsort()[1])  # ranks z right behind its own copy: rank 1 where its ranking holds nothing nearer
    ranks = (d[second] < d[second, 7]).sum()
    assert int(ranks) >= 1
    mixed = torch.tensor([[7, second]]).expand(5, 2)
    assert not bool(goal.achieved(scene, mixed)(z, unit).any())


def test_a_mismatch_is_achieved_at_its_target():
    _, scene, _ = toy()
    aims = choose(TargetedMismatch(), scene)
    achieved = TargetedMismatch().achieved(scene, aims)
    assert bool(achieved(scene.gallery.z[aims[:, 0]], torch.arange(5)).all())
    assert not bool(achieved(scene.gallery.z[(aims[:, 0] + 1) % 60], torch.arange(5)).any())


# ---- goals that preserve, order, or serve a whole block


@pytest.mark.parametrize("direction", ["raise", "lower"])
@pytest.mark.parametrize("weight", [FixedWeight(7.0), DynamicWeight(3.0), DynamicWeight(3.0, "image")], ids=repr)
@ALL
def test_a_preserving_attack_adds_the_weighted_raise_attack_on_what_is_preserved(distance, direction, weight):
    _, scene, _ = toy(distance)
    goal = PreservingQuery(direction, 3, weight=weight)
    aims = choose(goal, scene)
    assert aims.shape == (5, 8)
    z, unit = moved(scene), torch.arange(5)
    moving = Query(direction, 3).energy(scene, aims[:, :3])
    keeping = Query("raise", 5).energy(scene, aims[:, 3:])
    lost = keeping(z, unit, 1)
    xi = weight(lost)
    expected = torch.full((5,), 7.0, dtype=torch.float64)
    if isinstance(weight, DynamicWeight):
        expected = (3 * (lost.mean().expand(5) if weight.per == "batch" else lost)).exp().clamp_max(1e9)
    torch.testing.assert_close(xi, expected)

    def literal(z, unit, step):
        return moving(z, unit, step) + xi[unit] * keeping(z, unit, step)  # xi is a constant of the step

    for found, wanted in zip(gradient_of(goal.energy(scene, aims), z, unit), gradient_of(literal, z, unit)):
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)


def test_the_dynamic_weight_is_cut_off_and_never_nan():
    lost = torch.tensor([0.0, 1e-4, 1.0, torch.nan, torch.inf])
    assert DynamicWeight(per="image")(lost).tolist() == pytest.approx([1, math.exp(4), 1e9, 1e7, 1e9])
    assert DynamicWeight()(torch.tensor([0.0, 2e-4])).tolist() == pytest.approx([math.exp(4)] * 2)


def test_without_a_data_set_kappa_is_that_of_unknown_ones():
    assert torch.equal(DynamicWeight()(torch.tensor([1e-4])), DynamicWeight(4e4)(torch.tensor([1e-4])))
    with pytest.raises(ValueError, match="xi >= 0, got -5"):
        FixedWeight(-5.0)


def test_kappa_is_that_of_the_data_set():
    for name, kappa in (("mnist", 2e4), ("fashion", 4e4), ("Fashion-MNIST", 4e4), ("cars196", 7e4), ("digits", 4e4)):
        assert kappa_of(name) == kappa


@pytest.mark.parametrize("goal", [g for g in INSTANCES if isinstance(g, (PreservingQuery, PreservingOrder))], ids=repr)
def test_the_nearest_others_are_preserved(goal):
    _, scene, _ = toy()
    for seed in range(20):
        aims = choose(goal, scene, seed=seed)
        targets, preserved = aims[:, : goal.candidates], aims[:, goal.candidates :]
        published_raise = isinstance(goal, PreservingQuery) and goal.direction == "raise" and not goal.unique
        for own, taken, kept in zip(scene.head(10).tolist(), targets.tolist(), preserved.tolist()):
            left = own if published_raise else [row for row in own if row not in taken]
            assert kept == left[:5]


def test_a_head_that_is_too_short_is_made_longer_and_an_empty_one_refused():
    _, scene, _ = toy()
    assert choose(PreservingQuery("lower", 8), scene).shape == (5, 13)
    assert choose(PreservingQuery("lower", 57), scene).shape == (5, 59)  # two of 59 others are left to preserve
    with pytest.raises(ValueError, match=r"59 targets leave nothing to preserve among the 59 other items"):
        choose(PreservingQuery("lower", 59), scene)
    with pytest.raises(ValueError, match=r"60 targets cannot be drawn from the 59 nearest of a gallery of 60 items"):
        choose(PreservingOrder(60), scene)


@ALL
@pytest.mark.parametrize(("goal", "by"), [(Order(4), 16), (Order(4, "pairs"), 6), (Order(3), 9)], ids=repr)
def test_an_order_is_the_hinge_over_all_pairs(distance, goal, by):
    _, scene, _ = toy(distance)
    aims = choose(goal, scene)

    def literal(z, unit, step):
        rows = []
        for e, candidates in zip(z, aims[unit].tolist()):
            d = [distance.matrix(e[None], scene.gallery.z[[c]])[0, 0] for c in candidates]
            rows.append(sum(hinge(d[i] - d[j]) for i in range(len(d)) for j in range(i + 1, len(d))) / by)
        return torch.stack(rows)

    compare(goal.energy(scene, aims), literal, moved(scene))


def test_two_candidates_come_by_distance_and_shall_swap():
    metric, scene, images = toy()
    outcome = attacked(Order(), metric, scene, images, eps=0.5, steps=30)
    near, far = scene.distances.gather(1, outcome.aims).unbind(dim=1)
    assert bool((near < far).all())
    assert outcome.before["swapped"].tolist() == [0] * 5
    assert float(outcome.after["swapped"].mean()) > 0.5


def test_tau_is_that_of_kendall():
    stats = pytest.importorskip("scipy.stats")
    _, scene, _ = toy(Euclidean())
    aims = choose(Order(7), scene)
    z = moved(scene)
    d = scene.distance.matrix(z, scene.gallery.z).gather(1, aims)
    expected = [stats.kendalltau(range(7), row).statistic for row in d.tolist()]
    assert Order(7).score(scene, aims)(z)["tau"].tolist() == pytest.approx(expected)


def test_a_universal_goal_has_one_target_and_tells_seen_images_from_unseen_ones():
    metric, scene, images = toy()
    goal = Agnostic(Query("raise"))
    search = Universal(5, 0.05)
    outcome = attacked(goal, metric, scene, images, search=search)
    assert len(outcome.aims.unique()) == 1
    assert outcome.after["seen_prank"].isnan().tolist() == [False, True, False, True, False]
    assert outcome.after["unseen_prank"].isnan().tolist() == [True, False, True, False, True]
    prank = Query("raise").score(scene, outcome.aims)(metric.embed(outcome.images))["prank"]
    torch.testing.assert_close(outcome.after["seen_prank"][::2], prank[::2])
    near = attacked(Agnostic(Candidate("lower")), metric, scene, images, search=search)
    d = scene.distance.matrix(scene.clean, scene.gallery.z[near.aims[0]])[:, 0]
    assert near.after["seen_prank"].isfinite().nonzero().tolist() == [[int(d[::2].argmin()) * 2]]


def test_a_universal_goal_needs_a_universal_search():
    with pytest.raises(ValueError, match="one displacement for all images, got Pgd"):
        Attack(Agnostic(Query("raise")), Adversary(Linf(0.1), Pgd(2, 0.1)))


@pytest.mark.parametrize("direction", ["raise", "lower"])
@pytest.mark.parametrize("per", ["batch", "image"])
def test_the_weight_of_the_distance_objective_follows_the_hinge_of_what_is_preserved(direction, per):
    """With the distance itself in the exponent it would be cut off from the start, and nothing would move."""
    _, scene, _ = toy()
    goal = PreservingQuery(direction, weight=DynamicWeight(30.0, per), objective="distance")
    aims = choose(goal, scene)
    target, preserve = aims[:, :1], aims[:, 1:]

    def literal(z, unit, step):
        to_all = scene.distance.matrix(z, scene.gallery.z)
        kept = to_all.gather(1, preserve[unit])
        lost = (kept[:, :, None] - to_all[:, None, :]).clamp_min(0).mean(dim=(1, 2)).detach()
        xi = (30 * (lost.mean() if per == "batch" else lost)).exp()
        sign = 1 if direction == "raise" else -1
        return sign * to_all.gather(1, target[unit])[:, 0] + xi * kept.mean(dim=1)

    compare(goal.energy(scene, aims), literal, moved(scene))


@pytest.mark.parametrize("kind", [Candidate, Query])
def test_one_perturbation_moves_images_it_has_not_seen(kind):
    rows = torch.arange(40)
    metric, scene, images = toy(rows=rows)
    attack = Attack(Agnostic(kind("raise")), Adversary(Linf(0.5), Universal(20, 0.05)))
    outcome = attack(metric, scene, images, draws=Draws(0), index=rows)
    for half in ("seen_prank", "unseen_prank"):
        assert float(outcome.after[half].nanmean()) < float(outcome.before[half].nanmean()) - 0.1


def prototypes(labels=None, classes=6, inside=None):
    """Images before a linear classifier with one prototype per class."""
    images, own = blobs(classes=classes)
    rows = torch.arange(0, 60, 7)
    metric = DeepMetric(linear(classes), Dot())
    gallery = Gallery(torch.eye(classes, dtype=torch.float64), torch.arange(classes) if labels is None else labels)
    scene = RetrievalSystem(metric.distance, gallery).scene(metric.embed(images[rows]), own[rows], inside)
    return metric, scene, images[rows], rows


@pytest.mark.parametrize("target", ["any", "next", "random"])
def test_a_classifier_is_attacked_through_its_prototypes(target):
    metric, scene, images, rows = prototypes()
    goal = Misclassify(target)
    aims = choose(goal, scene, rows)
    unit = torch.arange(len(rows))
    logits = metric.embed(images)
    ce = torch.nn.functional.cross_entropy(logits, aims[:, 0], reduction="none")
    assert torch.equal(aims[:, 0] == scene.labels, torch.full((len(rows),), target == "any"))
    if target == "next":
        assert torch.equal(aims[:, 0], (scene.labels + 1) % 6)
    value, gradient = gradient_of(goal.energy(scene, aims), logits, unit)
    sign = -1 if target == "any" else 1
    torch.testing.assert_close(value, sign * ce)
    wanted = torch.softmax(logits, 1) - torch.nn.functional.one_hot(aims[:, 0], 6)
    torch.testing.assert_close(gradient, sign * wanted)
    outcome = attacked(goal, metric, scene, images, eps=1.0, steps=40, index=rows)
    accuracy = (metric.embed(outcome.images).argmax(1) == scene.labels).double()
    assert torch.equal(outcome.after["recall@1"], accuracy)
    achieved = goal.achieved(scene, aims)
    if target == "any":
        assert float(accuracy.mean()) < 0.2
        assert torch.equal(achieved(metric.embed(outcome.images), unit), accuracy == 0)
    else:
        assert float(outcome.after["reached"].mean()) > 0.8
        assert torch.equal(achieved(metric.embed(outcome.images), unit), outcome.after["reached"] == 1)
    turned = unit.flip(0)
    z = metric.embed(outcome.images)
    assert torch.equal(achieved(z[turned], turned), achieved(z, unit)[turned])


def test_a_classifier_under_no_budget_keeps_its_accuracy():
    metric, scene, images, rows = prototypes()
    outcome = attacked(Misclassify(), metric, scene, images, eps=0.0, index=rows)
    assert torch.equal(outcome.before["recall@1"], outcome.after["recall@1"])


def test_misclassification_needs_one_prototype_of_every_class():
    with pytest.raises(ValueError, match="one prototype per class, got 55 items of 5 classes"):
        choose(Misclassify(), toy(inside=False)[1])
    _, scene, _, rows = prototypes(labels=torch.tensor([0, 1, 2, 3, 9, 5]))
    with pytest.raises(ValueError, match=r"no prototype of class 4 \(1 are missing\)"):
        choose(Misclassify(), scene, rows)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Candidate("raise", 0), "Candidate needs at least one target, got 0"),
    (lambda: Query("lower", sampling="local"), "local sampling is defined for 'raise', got 'lower'"),
    (lambda: Candidate("raise", sampling="visual"), "visual sampling is defined for 'lower', got 'raise'"),
    (lambda: Order(1), "Order needs at least two candidates to put in order, got 1"),
    (lambda: PreservingOrder(1), "PreservingOrder needs at least two candidates"),
    (lambda: PreservingQuery("raise", preserved=0), "To preserve nothing use the plain attack"),
    (lambda: Agnostic(Query("raise", 2)), "Agnostic needs a goal with one target, got 2"),
])  # fmt: skip
def test_goals_without_meaning_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_samplings_draw_from_their_part_of_the_ranking():
    images, labels = blobs(per_class=80)
    _, scene = scene_of(linear(), Spherical(), images, labels, ROWS)
    places = scene.distances.argsort(dim=1).argsort(dim=1) - 1  # without the own copy
    for goal, low, high in (
        (Query("raise", 9, sampling="local"), 4, 20),
        (Candidate("raise", 9, sampling="local"), 4, 20),
        (Query("lower", sampling="visual"), 0, 1),
        (Query("lower", 3, sampling="visual"), 0, 3),
    ):
        drawn = torch.cat([places.gather(1, choose(goal, scene, seed=s)) for s in range(30)])
        assert sorted(set(drawn.flatten().tolist())) == list(range(low, high))
    tiny, _ = blobs(classes=2, per_class=5)
    _, scene = scene_of(linear(), Spherical(), tiny, labels[:10], torch.arange(2))
    with pytest.raises(ValueError, match="a gallery of 10 items has no room for 1 there"):
        choose(Query("raise", sampling="local"), scene, torch.arange(2))


def test_an_attack_in_normalised_space_is_the_attack_in_pixels_before_a_network_that_normalises():
    """Published attacks divide eps and step by each channel's deviation and clip to the image of the box."""
    g = generator(5)
    images = torch.rand(4, 3, 5, 5, generator=g, dtype=torch.float64)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 4)).double()
    normalise, labels = imagenet(), torch.arange(4)
    std = normalise.std.double()
    eps, step, x0 = 0.1 / std, 0.03 / std, normalise(images)
    low, high = normalise(torch.zeros_like(images)), normalise(torch.ones_like(images))
    x = x0
    for _ in range(5):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(-torch.nn.functional.cross_entropy(classifier(x), labels), x)
        x = torch.minimum(torch.maximum(x - step * gradient.sign(), x0 - eps), x0 + eps)
        x = torch.minimum(torch.maximum(x, low), high)
    metric = DeepMetric(Layers(4, normalise, classifier), Dot())
    gallery = Gallery(torch.eye(4, dtype=torch.float64), labels)
    scene = RetrievalSystem(Dot(), gallery).scene(metric.embed(images), labels, None)
    outcome = Attack(Misclassify(), Adversary(Linf(0.1), Pgd(5, 0.03)))(
        metric, scene, images, draws=Draws(0), index=labels
    )
    torch.testing.assert_close(normalise(outcome.images), x.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [PreservingQuery, PreservingOrder])
def test_only_the_mean_over_the_batch_couples_images(kind):
    first = {"direction": "raise"} if kind is PreservingQuery else {}
    assert kind(**first).coupled
    assert not kind(**first, weight=FixedWeight()).coupled
    assert not kind(**first, weight=DynamicWeight(per="image")).coupled
    _, scene, _ = toy()
    goal = kind(**first, weight=DynamicWeight(50.0))
    energy, z, unit = goal.energy(scene, choose(goal, scene)), moved(scene), torch.arange(5)
    together = energy(z, unit, 1)
    alone = torch.cat([energy(z[[u]], torch.tensor([u]), 1) for u in range(5)])
    assert not torch.allclose(together, alone)


@ALL
@pytest.mark.parametrize("goal", [Query("raise", 2), Query("lower", 2), TopOut()], ids=repr)
def test_an_energy_is_the_same_where_nobody_asks_for_its_gradient(goal, distance):
    _, scene, _ = toy(distance)
    energy, z, unit = goal.energy(scene, choose(goal, scene)), moved(scene), torch.tensor([3, 3, 0, 1, 4])
    with_gradient = energy(z.clone().requires_grad_(), unit, 1)
    without = energy(z, unit, 1)
    assert with_gradient.requires_grad
    assert not without.requires_grad
    torch.testing.assert_close(without, with_gradient.detach(), atol=1e-12, rtol=1e-9)


@ALL
@INSIDE
def test_pulling_in_the_nearest_lowers_by_how_much_the_first_result_is_right(distance, inside):
    metric, scene, images = toy(distance, inside)
    z = metric.embed(images) + 0.1
    goal = Misrank(pulled="nearest")
    found = goal.energy(scene, goal.choose(scene, draws=Draws(0), index=torch.arange(5)))(z, torch.arange(5), 0)
    d = distance.matrix(z, scene.gallery.z)
    for i in range(5):
        others = [j for j in range(scene.size) if scene.itself is None or j != int(scene.itself[i])]
        same = [float(d[i, j]) for j in others if scene.gallery.labels[j] == scene.labels[i]]
        wrong = [float(d[i, j]) for j in others if scene.gallery.labels[j] != scene.labels[i]]
        assert float(found[i]) == pytest.approx(max(0.0, min(wrong) - min(same)), abs=1e-6)


@ALL
@INSIDE
def test_leaving_a_class_lowers_the_margin_between_the_means_of_classes(distance, inside):
    metric, scene, images = toy(distance, inside)
    z = metric.embed(images) + 0.1
    goal = LeaveClass()
    found = goal.energy(scene, goal.choose(scene, draws=Draws(0), index=torch.arange(5)))(z, torch.arange(5), 0)
    labels = scene.gallery.labels
    placed = distance.place(scene.gallery.z)
    for i in range(5):
        d = {int(c): distance.matrix(z[i : i + 1], placed[labels == c].mean(dim=0)[None]) for c in labels.unique()}
        own = float(d.pop(int(scene.labels[i])))
        assert float(found[i]) == pytest.approx(min(map(float, d.values())) - own, abs=1e-6)


def test_a_query_without_a_class_or_with_the_only_one_cannot_leave_it():
    images, labels = blobs()
    for changed in (torch.where(torch.arange(len(labels)) == ROWS[0], 70, labels), torch.zeros_like(labels)):
        metric, scene = scene_of(linear(), Spherical(), images, changed, ROWS)
        outcome = attacked(LeaveClass(), metric, scene, images[ROWS])
        assert bool(torch.isfinite(outcome.images).all())
    assert torch.equal(outcome.images, images[ROWS])
