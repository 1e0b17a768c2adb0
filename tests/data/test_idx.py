import gzip

import numpy as np
import pytest
import torch

from robustdml.data.errors import DataError
from robustdml.data.idx import Fashion, Mnist
from robustdml.data.sources import PUBLISHED
from tests.data.conftest import idx

NEXT = "robustdml data fashion --download --data-root"


def failure(root):
    """The message of the error that loading meets; it always says which command comes next."""
    with pytest.raises(DataError) as caught:
        Fashion().load(root)
    assert NEXT in str(caught.value)
    return str(caught.value)


def rewrite(installed, file, content):
    (installed / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))


def test_training_images_come_first_and_test_images_ask_and_answer(tiny, installed, contents):
    images = Fashion().load(tiny)
    assert len(images) == 40
    assert images.split.train.tolist() == list(range(30))
    assert images.split.query.tolist() == images.split.gallery.tolist() == list(range(30, 40))
    assert images.shape == (1, 28, 28)
    stored = [np.frombuffer(contents[f"{p}-images-idx3-ubyte"], np.uint8, offset=16) for p in ("train", "t10k")]
    assert (images.batch(torch.arange(40)) * 255).round().flatten().tolist() == np.concatenate(stored).tolist()
    assert images.labels[30:].tolist() == list(contents["t10k-labels-idx1-ubyte"][8:])
    assert images.class_names[9] == "Ankle boot"


def test_unpacked_files_are_read_too(tiny, installed, contents):
    packed = Fashion().load(tiny).fingerprint()
    for file, content in contents.items():
        (installed / f"{file}.gz").unlink()
        (installed / file).write_bytes(content)
    assert Fashion().load(tiny).fingerprint() == packed


def test_missing_files_are_named_with_the_places_searched(tiny):
    message = failure(tiny)
    assert "fashion was not found. Looked for train-images-idx3-ubyte.gz" in message
    assert str(tiny / "FashionMNIST/raw") in message
    assert ".cache/robustdml/FashionMNIST/raw" in message
    assert ".torch/FashionMNIST/raw" in message


def test_an_incomplete_folder_is_not_passed_over(tiny, installed):
    (installed / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "found 3 of 4 files, missing t10k-labels-idx1-ubyte.gz" in failure(tiny)


def test_a_truncated_gzip_file_is_refused(tiny, installed):
    path = installed / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4000])
    message = failure(tiny)
    assert str(path) in message
    assert "end-of-stream marker" in message


def test_a_gzip_file_with_a_changed_byte_is_refused(tiny, installed):
    path = installed / "train-images-idx3-ubyte.gz"
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 255
    path.write_bytes(damaged)
    assert str(path) in failure(tiny)


def test_garbage_in_place_of_gzip_is_refused(tiny, installed):
    (installed / "train-labels-idx1-ubyte.gz").write_bytes(b"<html>404</html>")
    assert "train-labels-idx1-ubyte.gz is damaged or cannot be read: Not a gzipped file" in failure(tiny)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<html>404</html>", np.array([2052, 1], ">i4").tobytes()])
def test_files_without_an_idx_header_are_refused(tiny, installed, content):
    rewrite(installed, "train-labels-idx1-ubyte", content)
    assert f"holds no IDX data (it starts with {content[:4]!r}), expected labels (magic number 2049)" in failure(tiny)


def test_images_in_place_of_labels_are_refused(tiny, installed, contents):
    rewrite(installed, "train-labels-idx1-ubyte", contents["train-images-idx3-ubyte"])
    assert "holds images (magic number 2051), expected labels (magic number 2049)" in failure(tiny)


def test_another_number_of_images_is_refused(tiny, installed, contents):
    rewrite(installed, "train-images-idx3-ubyte", contents["t10k-images-idx3-ubyte"])
    assert "train-images-idx3-ubyte.gz holds 10 x 28 x 28 values, expected 30 x 28 x 28" in failure(tiny)


def test_another_number_of_labels_than_images_is_refused(tiny, installed):
    rewrite(installed, "train-labels-idx1-ubyte", idx(np.zeros(29)))
    assert "train-labels-idx1-ubyte.gz holds 29 values, expected 30" in failure(tiny)


def test_another_image_size_is_refused(tiny, installed):
    rewrite(installed, "train-images-idx3-ubyte", idx(np.zeros((30, 32, 32))))
    assert "holds 30 x 32 x 32 values, expected 30 x 28 x 28" in failure(tiny)


def test_missing_values_are_refused(tiny, installed, contents):
    rewrite(installed, "train-images-idx3-ubyte", contents["train-images-idx3-ubyte"][:-1])
    assert "is truncated: found 23519 of 23520 values" in failure(tiny)


def test_values_beyond_the_announced_ones_are_refused(tiny, installed, contents):
    rewrite(installed, "train-images-idx3-ubyte", contents["train-images-idx3-ubyte"] + b"\0")
    assert "continues after the 23520 values that it announces" in failure(tiny)


def test_a_label_outside_0_to_9_is_refused(tiny, installed):
    labels = np.zeros(30)
    labels[7] = 10
    rewrite(installed, "train-labels-idx1-ubyte", idx(labels))
    assert "label 10 at position 7, expected labels 0 … 9" in failure(tiny)


def test_mislabelled_images_are_refused(tiny, installed):
    rewrite(installed, "train-labels-idx1-ubyte", idx(np.arange(30) % 10))
    message = failure(tiny)
    assert "train-labels-idx1-ubyte.gz is not train-labels-idx1-ubyte of fashion: the MD5 of its content is" in message
    assert PUBLISHED["fashion"].contents["train-labels-idx1-ubyte"] in message


def test_files_of_another_data_set_are_recognised(tiny, installed, contents, monkeypatch):
    other = idx(np.arange(30) % 10)
    rewrite(installed, "train-labels-idx1-ubyte", other)
    import hashlib

    monkeypatch.setitem(PUBLISHED["mnist"].contents, "train-labels-idx1-ubyte", hashlib.md5(other).hexdigest())
    assert "is not train-labels-idx1-ubyte of fashion: it is train-labels-idx1-ubyte of mnist" in failure(tiny)


@pytest.mark.real
@pytest.mark.parametrize("spec", [Mnist(), Fashion()])
def test_the_real_files_load(real_data, spec):
    images = spec.load(real_data)
    assert (len(images.split.train), len(images.split.query)) == spec.split_sizes == (60_000, 10_000)
    assert images.labels.bincount(minlength=10).min() > 6000
    assert 0.05 < images.batch(images.split.query[:100]).mean() < 0.5
