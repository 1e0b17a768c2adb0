import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdml.data.batches import Batches, ClassBatches, Spc2, TripletBatches, whole_parts
from robustdml.draws import Draws

in_seconds = settings(deadline=None, max_examples=50)

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(torch.tensor)
PAIRS = st.integers(1, 12)
SEEDS = st.integers(0, 1000)


def some(labels, seed):
    """About half of the rows, at least one."""
    rows = Draws(seed).permutation("some", torch.zeros(1, dtype=torch.long), len(labels))[0]
    return rows[: (len(labels) + 1) // 2]


def whole(labels, train, seed):
    """All pairs of an epoch, [t 2]."""
    return torch.cat(Spc2(7).epoch(labels, train, draws=Draws(seed))).reshape(-1, 2)


@in_seconds
@given(LABELS, SEEDS)
def test_a_pair_has_one_class_and_lies_in_the_training_set(labels, seed):
    train = some(labels, seed)
    pairs = whole(labels, train, seed)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert torch.isin(pairs, train).all()


@in_seconds
@given(LABELS, SEEDS)
def test_each_training_image_is_first_exactly_once(labels, seed):
    train = some(labels, seed)
    assert whole(labels, train, seed)[:, 0].sort().values.equal(train.sort().values)


@in_seconds
@given(LABELS, SEEDS, PAIRS)
def test_order_and_partners_do_not_depend_on_the_batch_size(labels, seed, pairs):
    train = some(labels, seed)
    batches = Spc2(pairs).epoch(labels, train, draws=Draws(seed))
    assert all(len(batch) == 2 * pairs for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= 2 * pairs
    assert torch.cat(batches).reshape(-1, 2).equal(whole(labels, train, seed))


@in_seconds
@given(LABELS, SEEDS, PAIRS, st.integers(1, 5))
def test_ranks_joined_are_the_batch_of_one_process(labels, seed, pairs, world):
    train = some(labels, seed)
    shards = [Spc2(pairs).epoch(labels, train, draws=Draws(seed), rank=r, world=world) for r in range(world)]
    joined = [torch.cat(step) for step in zip(*shards, strict=True)]
    single = Spc2(pairs * world).epoch(labels, train, draws=Draws(seed))
    assert len(joined) == len(single)
    assert all(a.equal(b) for a, b in zip(joined, single, strict=True))


@in_seconds
@given(LABELS, SEEDS, PAIRS, st.integers(1, 5))
def test_processes_hold_whole_pairs_as_evenly_as_possible(labels, seed, pairs, world):
    train = some(labels, seed)
    shards = [Spc2(pairs).epoch(labels, train, draws=Draws(seed), rank=r, world=world) for r in range(world)]
    for step in zip(*shards, strict=True):
        sizes = [len(batch) for batch in step]
        assert all(size % 2 == 0 and size <= 2 * pairs for size in sizes)
        assert max(sizes) - min(sizes) <= 2


@in_seconds
@given(LABELS, SEEDS)
def test_the_order_of_the_training_rows_does_not_matter(labels, seed):
    train = some(labels, seed)
    assert whole(labels, train, seed).equal(whole(labels, train.flip(0), seed))


def test_epochs_differ_and_repeat_with_their_draws():
    labels = torch.arange(60) % 3
    first, again, second = (
        torch.cat(Spc2(8).epoch(labels, torch.arange(60), draws=Draws(0).under("epoch", e))) for e in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first[::2].equal(second[::2])


def test_order_is_shuffled():
    firsts = whole(torch.zeros(200, dtype=torch.long), torch.arange(200), 0)[:, 0]
    assert not firsts.equal(torch.arange(200))
    assert (firsts[:100] < 100).sum() in range(30, 71)


def test_partners_are_uniform_over_the_class_itself_included():
    labels = torch.tensor([0, 0, 0, 0, 1])
    partners = torch.zeros(5, 5)
    for epoch in range(2000):
        first, second = whole(labels, torch.arange(5), epoch).T
        partners[first, second] += 1 / 2000
    expected = torch.block_diag(torch.full((4, 4), 0.25), torch.ones(1, 1))
    assert torch.allclose(partners, expected, atol=0.04)  # four standard deviations


def test_a_class_with_a_single_image_is_paired_with_itself():
    [batch] = Spc2().epoch(torch.tensor([3, 7]), torch.tensor([1]), draws=Draws(0))
    assert batch.tolist() == [1, 1]


def test_without_training_images_there_are_no_steps():
    empty = torch.empty(0, dtype=torch.long)
    assert sum(len(batch) for batch in Spc2().epoch(torch.tensor([3]), empty, draws=Draws(0))) == 0


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one pair per batch, got pairs=0"):
        Spc2(0)
    with pytest.raises(ValueError, match="at least two images per batch, got images=1"):
        ClassBatches(1)
    with pytest.raises(ValueError, match="at least one triplet per batch, got count=0"):
        TripletBatches(0)
    with pytest.raises(ValueError, match=r"rank=2 of world=2; expected 0 <= rank < world"):
        Spc2().epoch(torch.tensor([0]), torch.tensor([0]), draws=Draws(0), rank=2, world=2)


# ---- what every composition does

KINDS = pytest.mark.parametrize("kind", [Spc2, ClassBatches, TripletBatches], ids=lambda c: c.__name__)
TWO_CLASSES = st.lists(st.integers(0, 4), min_size=1, max_size=38).map(lambda drawn: torch.tensor([0, 1, *drawn]))


def epoch(kind, labels, train, seed, size=7, rank=0, world=1):
    return kind(size).epoch(labels, train, draws=Draws(seed), rank=rank, world=world)


@KINDS
@in_seconds
@given(labels=TWO_CLASSES, seed=SEEDS, size=st.integers(2, 12), world=st.integers(1, 4))
def test_items_are_whole_ordered_by_draws_alone_and_spread_over_processes(kind, labels, seed, size, world):
    train = torch.arange(len(labels))
    rows = kind.rows_per_item
    items = torch.cat(epoch(kind, labels, train, seed)).reshape(-1, rows)
    assert items[:, 0].sort().values.equal(train)
    assert torch.cat(epoch(kind, labels, train.flip(0), seed, size)).reshape(-1, rows).equal(items)
    shards = [epoch(kind, labels, train, seed, size, rank, world) for rank in range(world)]
    single = epoch(kind, labels, train, seed, size * world)
    assert torch.cat([torch.cat(step) for step in zip(*shards, strict=True)]).equal(torch.cat(single))
    for step, whole in zip(zip(*shards, strict=True), single, strict=True):
        assert torch.cat(step).equal(whole) or kind is ClassBatches  # whose last two batches may share
        sizes = [len(part) for part in step]
        assert all(n % rows == 0 and n <= rows * size for n in sizes)
        assert max(sizes) - min(sizes) <= rows


@KINDS
def test_a_composition_is_what_a_recipe_asks_for(kind):
    it = kind(6)
    assert isinstance(it, Batches)
    assert it.items == 6
    assert kind() == kind(128)
    first, again, other = (
        torch.cat(it.epoch(torch.arange(30) % 3, torch.arange(30), draws=Draws(0).under("epoch", e))) for e in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)


@KINDS
@pytest.mark.parametrize("parts", [1, 2, 5, 9])
def test_parts_of_a_batch_keep_items_together(kind, parts):
    rows = torch.arange(4 * kind.rows_per_item)
    cut = whole_parts(rows, kind.rows_per_item, parts)
    assert len(cut) == min(parts, 4)
    assert torch.cat(cut).equal(rows)
    assert all(len(part) % kind.rows_per_item == 0 for part in cut)
    assert whole_parts(rows[:0], kind.rows_per_item, parts) == []


@in_seconds
@given(labels=TWO_CLASSES, seed=SEEDS)
def test_a_ready_triplet_has_a_positive_of_its_class_and_a_negative_of_another(labels, seed):
    rows = torch.cat(epoch(TripletBatches, labels, torch.arange(len(labels)), seed))
    t = TripletBatches().triplets(rows)
    anchor, positive, negative = (labels[r] for r in t.of(rows))
    assert anchor.equal(positive)
    assert bool((anchor != negative).all())
    assert Spc2().triplets(rows) is None
    assert ClassBatches().triplets(rows) is None


def test_negatives_are_uniform_over_the_other_classes_first():
    labels = torch.tensor([0, 1, 1, 1, 2])
    counts = torch.zeros(5)
    for seed in range(600):
        rows = torch.cat(epoch(TripletBatches, labels, torch.arange(5), seed)).reshape(-1, 3)
        counts[rows[rows[:, 0] == 0, 2]] += 1 / 600
    assert torch.allclose(counts, torch.tensor([0, 1 / 6, 1 / 6, 1 / 6, 1 / 2]), atol=0.082)  # four standard deviations


def test_ready_triplets_of_one_class_are_refused():
    with pytest.raises(ValueError, match=r"found no negatives: all 3 training images are of class 4"):
        TripletBatches().epoch(torch.full((3,), 4), torch.arange(3), draws=Draws(0))


@in_seconds
@given(LABELS, SEEDS)
def test_another_partner_is_never_the_image_itself_and_the_order_stays(labels, seed):
    train = some(labels, seed)
    pairs = torch.cat(Spc2(7, partner="another").epoch(labels, train, draws=Draws(seed))).reshape(-1, 2)
    assert pairs[:, 0].equal(whole(labels, train, seed)[:, 0])
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert torch.isin(pairs, train).all()
    alone = labels[train].bincount(minlength=5)[labels[pairs[:, 0]]] == 1
    assert (pairs[:, 0] == pairs[:, 1]).equal(alone)


def test_another_partner_is_uniform_over_the_others():
    labels = torch.tensor([0, 1] * 4)
    counts = torch.zeros(8, 8)
    for seed in range(600):
        pairs = torch.cat(Spc2(8, "another").epoch(labels, torch.arange(8), draws=Draws(seed))).reshape(-1, 2)
        counts[pairs[:, 0], pairs[:, 1]] += 1
    others = (labels[:, None] == labels) & ~torch.eye(8, dtype=torch.bool)
    assert counts[~others].sum() == 0
    assert (counts[others] - 200).abs().max() < 60


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("left", range(6))
def test_no_process_is_left_with_a_single_image_at_the_end_of_an_epoch(world, left):
    """Batch normalisation has nothing to go by there."""
    count = 2 * 8 * world + left
    shards = [epoch(ClassBatches, torch.arange(count) % 3, torch.arange(count), 0, 8, r, world) for r in range(world)]
    assert all(2 <= len(part) <= 8 for part in (part for shard in shards for part in shard))
    assert all(len(shard) == 2 + (left > 0) for shard in shards)  # as many steps as ever
    assert torch.cat([torch.cat(step) for step in zip(*shards, strict=True)]).sort().values.equal(torch.arange(count))
    [alone] = epoch(ClassBatches, torch.arange(1), torch.arange(1), 0, 8)
    assert len(alone) == 1
