"""Batches ahead: the same ones whatever the number of workers, and what happens when an image is damaged."""

import threading
from dataclasses import replace

import pytest
import torch

from robustdml.data.batches import Spc2, slots
from robustdml.data.digits import Digits
from robustdml.data.errors import DamagedImages, DataError
from robustdml.data.loading import Loader, Views, ahead, workers_for
from robustdml.draws import Draws
from tests.data.fakes import CUB, cub, picture


@pytest.fixture
def data(tmp_path):
    return replace(CUB, expected=(6, 4, 3, 2)).load(cub(tmp_path).parent)


def steps(data, pairs=2, epoch=0):
    draws = Draws(0).under(epoch)
    found = Spc2(pairs).epoch(data.labels, data.split.train, draws=draws)
    return [Views(rows, 2, draws) for rows in found]


def damage(data, name):
    (data.images.store.path / name).write_bytes(b"no image")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_worker_processes_give_the_same_bits_epoch_after_epoch(data):
    loader = Loader(data, workers=2)
    for epoch in range(2):
        expected = list(Loader(data).epoch(steps(data, epoch=epoch)))
        found = list(loader.epoch(steps(data, epoch=epoch)))
        assert len(found) == len(expected) == 3
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.rows, other.rows)
            assert torch.equal(one.images, other.images)
    damage(data, data.images.names[0])
    with pytest.raises(DamagedImages, match=r"b_1_0.jpg cannot be read as an image"):
        list(loader.epoch(steps(data)))


def test_views_do_not_depend_on_the_batch_they_are_in(data):
    views = {}
    for pairs in (1, 2, 5):
        for loaded in Loader(data).epoch(steps(data, pairs)):
            for (first, second), images in zip(
                loaded.rows.reshape(-1, 2).tolist(), loaded.images.unflatten(0, (-1, 2))
            ):
                assert torch.equal(views.setdefault((first, second), images), images)
    assert len(views) == 6
    other = next(Loader(data).epoch(steps(data, 6, epoch=1)))
    assert not any(
        torch.equal(views[tuple(rows)], images)
        for rows, images in zip(other.rows.reshape(-1, 2).tolist(), other.images.unflatten(0, (-1, 2)))
        if tuple(rows) in views
    )


def test_the_two_views_of_an_image_that_is_its_own_partner_differ(data):
    rows = torch.arange(6).repeat_interleave(2)
    pairs = [
        pair
        for seed in range(10)
        for pair in next(Loader(data).epoch([Views(rows, 2, Draws(seed))])).images.unflatten(0, (-1, 2))
    ]
    assert sum(torch.equal(*pair) for pair in pairs) < 12  # one in 18 agrees by chance


def test_slots_tell_every_row_of_an_epoch_apart(data):
    for pairs in (1, 4):
        rows = Spc2(pairs).epoch(data.labels, data.split.train, draws=Draws(3))
        found = torch.cat([slots(r, 2) for r in rows])
        assert found.unique().numel() == len(found) == 12
    assert slots(torch.tensor([7, 9, 2]), 1).tolist() == [7, 9, 2]
    assert slots(torch.empty(0, dtype=torch.long), 2).tolist() == []


def test_a_damaged_image_is_named_or_skipped_with_its_partner(data):
    damage(data, data.images.names[2])
    with pytest.raises(DamagedImages, match=r"b_2_0.jpg cannot be read as an image") as caught:
        list(Loader(data).epoch(steps(data, 6)))
    assert caught.value.index.unique().tolist() == [2]
    with pytest.warns(UserWarning, match=r"rows of a batch were skipped: .*b_2_0.jpg cannot be read"):
        [loaded] = Loader(data, skip_damaged=True).epoch(steps(data, 6))
    whole = steps(data, 6)[0].rows.reshape(-1, 2)
    kept = whole[(whole != 2).all(dim=1)]
    assert loaded.rows.reshape(-1, 2).equal(kept)
    assert len(loaded.images) == len(loaded.rows)


def test_a_batch_of_damaged_images_alone_becomes_empty(data):
    for name in data.images.names[:6]:
        damage(data, name)
    with pytest.warns(UserWarning, match=r"(?s)12 rows of a batch were skipped.* more"):
        [loaded] = Loader(data, skip_damaged=True).epoch(steps(data, 6))
    assert loaded.images.shape == (0, 3, 6, 6)


def test_an_image_of_another_size_is_an_error_even_where_damaged_ones_are_skipped(data, tmp_path):
    broken = replace(data, images=replace(data.images, shape=(3, 5, 5)))
    picture(tmp_path / "x.png")
    with pytest.raises(DataError, match="6x6 pixels"):
        list(Loader(broken).epoch(steps(data)))


def test_little_shared_memory_means_fewer_workers(data, monkeypatch):
    monkeypatch.setattr("robustdml.data.loading._fits", lambda size: 0)
    with pytest.warns(UserWarning, match=r"0 of 3 workers are started: /dev/shm has too little room"):
        found = list(Loader(data, workers=3).epoch(steps(data)))
    assert len(found) == 3


def test_workers_are_started_where_they_pay(data, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert workers_for(data, gpu) == 8
    assert workers_for(data, gpu, processes=4) == 3
    assert workers_for(data, cpu) == 0
    assert workers_for(Digits().load(), gpu) == 0
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        Loader(data, workers=-1)


def test_one_item_is_made_while_another_is_used():
    made, second = [], threading.Event()

    def make(item):
        made.append(item)
        if item == 1:
            second.set()
        return 10 * item

    found = ahead(make, range(4))
    assert next(found) == 0
    assert second.wait(5), "item 1 is made although nobody asked for it yet"
    assert list(found) == [10, 20, 30]
    assert made == [0, 1, 2, 3]
    assert list(ahead(make, [])) == []


def test_an_error_ahead_arrives_with_its_item():
    def make(item):
        if item == 2:
            raise DataError("two")
        return item

    found = ahead(make, range(4))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(DataError, match="two"):
        next(found)
