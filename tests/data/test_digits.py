import pytest
import torch

from robustdml.data.digits import Digits


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_counts_and_shape_are_as_published(digits):
    assert len(digits) == 1797
    assert (len(digits.split.train), len(digits.split.query)) == Digits.split_sizes == (1437, 360)
    assert digits.shape == Digits.shape == (1, 8, 8)
    assert digits.num_classes == 10
    assert not digits.zero_shot


def test_pixels_are_exact_sixteenths(digits):
    from sklearn.datasets import load_digits

    batch = digits.batch(torch.arange(len(digits)))
    assert batch.double()[:, 0].equal(torch.from_numpy(load_digits().images) / 16)
    assert (batch.min(), batch.max()) == (0, 1)


def test_train_and_test_share_no_image_and_cover_all(digits):
    rows = torch.cat([digits.split.train, digits.split.query])
    assert rows.sort().values.equal(torch.arange(1797))
    assert digits.split.query.equal(digits.split.gallery)


def test_every_class_gives_a_fifth_to_the_test(digits):
    total = digits.labels.bincount()
    assert (digits.labels[digits.split.query].bincount() - total / 5).abs().max() < 1


def test_the_split_is_the_same_on_every_machine(digits):
    assert digits.split.query[:5].tolist() == [1187, 712, 1721, 1302, 1661]
    assert digits.split.train[:5].tolist() == [625, 801, 1769, 1771, 713]
    assert Digits().load().fingerprint() == digits.fingerprint()
