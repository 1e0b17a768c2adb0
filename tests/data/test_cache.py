"""Decoded images on disk: the same bits, all of them or no file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from robustdml.data import Folder
from robustdml.data.cache import cached
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.data.images import Augmented
from robustdml.data.transforms import CentreCrop, RandomResizedCrop, Unchanged
from robustdml.draws import Draws
from robustdml.files import OutputError
from tests.data.fakes import CUB, FAKES, SUBSET, cub, subset


@pytest.mark.parametrize("name", ["cub", "cars", "sop", "cifar100-250", "omniglot"])
def test_views_and_fingerprint_are_those_without_it(tmp_path, name):
    spec, make = FAKES[name]
    make(tmp_path)
    data = spec.load(tmp_path)
    lines = []
    kept = cached(data, tmp_path / "kept", lines.append)
    index = torch.arange(len(data))
    assert isinstance(kept.images, Augmented)
    assert torch.equal(kept.batch(index), data.batch(index))
    assert torch.equal(kept.views(index, index, Draws(0)), data.views(index, index, Draws(0)))
    assert kept.fingerprint() == data.fingerprint()
    assert len(kept) == len(data)
    assert kept.batch(index[:0]).shape == (0, *data.shape)
    [file] = (tmp_path / "kept/decoded").iterdir()
    size = np.load(file, mmap_mode="r").nbytes
    assert f"decoding {len(data)} images into {file} ({size:,} bytes)" in lines


def test_the_second_time_nothing_is_decoded(tmp_path):
    place = cub(tmp_path)
    data = CUB.load(tmp_path)
    before = cached(data, tmp_path).batch(torch.arange(10))
    for path in place.rglob("*.jpg"):
        path.write_bytes(b"x" * path.stat().st_size)
    again = cached(CUB.load(tmp_path), tmp_path, pytest.fail)
    assert torch.equal(again.batch(torch.arange(10)), before)
    other = replace(CUB, test=CentreCrop(6, 9), train=CentreCrop(6, 9)).load(tmp_path)
    with pytest.raises(DataError, match="cannot be read as an image"):
        cached(other, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_stops_it_leaves_nothing(tmp_path, monkeypatch, error):
    cub(tmp_path)
    data = CUB.load(tmp_path)
    monkeypatch.setattr("robustdml.data.cache._BATCH", 4)
    calls = []

    def stopping(images, source):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return images.to(torch.uint8)

    monkeypatch.setattr("robustdml.data.cache._in_bytes", stopping)
    with pytest.raises((error, OutputError)):
        cached(data, tmp_path / "kept")
    assert len(calls) == 2
    assert list((tmp_path / "kept/decoded").iterdir()) == []


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    cub(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(OutputError, match=r"would take 1,920 bytes, and 100 are free"):
        cached(CUB.load(tmp_path), tmp_path / "kept")


def test_images_of_more_than_8_bits_are_refused(tmp_path):
    for name in "abcd":
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), 30_001 + i, np.uint16)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match="more than 8 bits per value, which the cache would round"):
        cached(Folder(str(tmp_path)).load(), tmp_path / "kept")
    assert list((tmp_path / "kept/decoded").iterdir()) == []


def test_views_that_are_cut_from_originals_are_refused(tmp_path):
    cub(tmp_path)
    for train, test in ((RandomResizedCrop(6), CentreCrop(6, 8)), (CentreCrop(6, 7), CentreCrop(6, 8)),
                        (CentreCrop(6, 8, shorter=True), CentreCrop(6, 8, shorter=True))):  # fmt: skip
        with pytest.raises(ValueError, match="can be kept only if training and test views are cut from"):
            cached(replace(CUB, train=train, test=test).load(tmp_path), tmp_path / "kept")


def test_images_in_memory_stay_there(tmp_path):
    data = Digits().load()
    assert cached(data, tmp_path) is data


def test_without_a_root_it_lies_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = replace(SUBSET, train=Unchanged()).load(subset(tmp_path).parent)
    cached(data)
    [file] = (tmp_path / "cache/robustdml/decoded").iterdir()
    assert file.name.startswith("cifar100-250-")
