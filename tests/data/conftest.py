"""A small stand-in for Fashion-MNIST: 30 training and 10 test images, with their own checksums."""

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustdml.data.sources import PUBLISHED


def idx(values):
    """The bytes of an IDX file."""
    header = [2048 + values.ndim, *values.shape]
    return np.array(header, ">i4").tobytes() + values.astype(np.uint8).tobytes()


@pytest.fixture
def contents():
    """File name → unpacked bytes of the stand-in."""
    random = np.random.default_rng(0)
    return {
        f"{part}-{kind}-ubyte": idx(random.integers(0, top, (count, *shape)))
        for part, count in (("train", 30), ("t10k", 10))
        for kind, top, shape in (("images-idx3", 256, (28, 28)), ("labels-idx1", 10, ()))
    }


@pytest.fixture
def tiny(contents, monkeypatch, tmp_path):
    """Publishes the stand-in as "fashion", hides every other place, and returns an empty data root."""
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
    published = replace(PUBLISHED["fashion"], contents=md5, sizes=(30, 10), packaged=())
    monkeypatch.setitem(PUBLISHED, "fashion", published)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ROBUSTDML_DATA", raising=False)
    return tmp_path / "root"


@pytest.fixture
def installed(tiny, contents):
    """The folder of the stand-in's files below `tiny`, packed."""
    place = tiny / "FashionMNIST/raw"
    place.mkdir(parents=True)
    for file, content in contents.items():
        (place / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))
    return place


@pytest.fixture
def real_data():
    """The root of the real data sets; skips the test where there is none."""
    if not os.environ.get("ROBUSTDML_DATA"):
        pytest.skip("set ROBUSTDML_DATA to the folder that holds MNIST/raw and FashionMNIST/raw")
    return Path(os.environ["ROBUSTDML_DATA"])
