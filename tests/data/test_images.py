import pickle
from dataclasses import replace

import pytest
import torch

from robustdml.data.images import Images, ImageSet, Pixels, Split


@pytest.fixture
def images():
    pixels = Pixels(torch.arange(6 * 2 * 2 * 3).reshape(6, 2, 2, 3).to(torch.uint8))
    split = Split(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.tensor([3, 4, 5]))
    return ImageSet("toy", pixels, torch.tensor([0, 0, 1, 2, 2, 3]), split, ("a", "b", "c", "d"))


def test_pixels_are_bytes_over_255(images):
    batch = images.batch(torch.tensor([5, 0]))
    assert batch.dtype == torch.float32
    assert batch.shape == (2, *images.shape) == (2, 2, 2, 3)
    assert (batch[1].flatten() * 255).round().tolist() == list(range(12))
    assert Pixels(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).batch(torch.tensor([0])).item() == 1


def test_an_item_is_image_label_and_index(images):
    image, label, index = images[-1]
    assert (label, index) == (3, 5)
    assert image.equal(images.batch(torch.tensor([5]))[0])


def test_iteration_ends(images):
    assert [index for _, _, index in images] == list(range(6))
    with pytest.raises(IndexError):
        images[6]


def test_an_empty_batch_has_the_shape_of_images(images):
    assert images.batch(torch.empty(0, dtype=torch.long)).shape == (0, 2, 2, 3)


def test_zero_shot_means_disjoint_classes(images):
    assert images.zero_shot
    shared = replace(images, split=replace(images.split, gallery=torch.tensor([1, 3])))
    assert not shared.zero_shot


def test_the_fingerprint_follows_pixels_labels_names_and_split(images):
    other = images.images.values.clone()
    other[3, 0, 0, 0] += 1
    changed = [
        replace(images, images=Pixels(other)),
        replace(images, images=Pixels(images.images.values, top=254)),
        replace(images, images=Pixels(images.images.values.reshape(6, 2, 3, 2))),
        replace(images, labels=torch.tensor([0, 0, 1, 2, 3, 3])),
        replace(images, class_names=("a", "b", "c", "e")),
        replace(images, split=replace(images.split, train=torch.tensor([0, 1]))),
    ]
    assert len({images.fingerprint(), *(c.fingerprint() for c in changed)}) == 7
    assert replace(images, name="other").fingerprint() == images.fingerprint()


def test_workers_can_receive_an_image_set(images):
    assert pickle.loads(pickle.dumps(images)).fingerprint() == images.fingerprint()


def test_pixels_are_images(images):
    assert isinstance(images.images, Images)


def test_parts_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match="toy: 6 images but 5 labels"):
        replace(images, labels=images.labels[:5])
    with pytest.raises(ValueError, match=r"toy: labels 0 … 3, expected 0 … 2"):
        replace(images, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"split.query has rows outside 0 … 5"):
        replace(images, split=replace(images.split, query=torch.tensor([6])))
