"""CIFAR, its subset, Omniglot and ImageNet in the layouts in which they are found; the real ones where they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustdml.data import Cifar100Subset, OmniglotSmall, dataset
from robustdml.data.errors import DataError
from robustdml.data.transforms import RandomCrop
from robustdml.draws import Draws
from tests.data.fakes import (
    CIFAR10,
    CIFAR100,
    IMAGENET,
    OMNIGLOT,
    OMNIGLOT_SMALL,
    SUBSET,
    cifar10,
    cifar100,
    class_folders,
    imagenet,
    omniglot,
    packed,
    picture,
    rows,
    subset,
    write_pickle,
)


def failure(spec, root):
    with pytest.raises(DataError) as caught:
        spec.load(root)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar_is_read_in_the_order_of_its_files(tmp_path, protocol):
    images = CIFAR10.load(cifar10(tmp_path, protocol).parent)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1] * 5 + [1, 0, 1, 0]
    expected = np.concatenate([*(rows(2, i) for i in range(1, 6)), rows(4, 9)]).reshape(-1, 3, 32, 32)
    assert torch.equal(images.images.values, torch.from_numpy(expected))
    assert images.images.train == RandomCrop(32, None, padding=4)
    assert not images.zero_shot


def test_cifar_100_has_its_fine_labels(tmp_path):
    images = CIFAR100.load(cifar100(tmp_path).parent)
    assert images.class_names == ("apple", "bear", "cup")
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_cifar_in_class_folders(tmp_path):
    class_folders(tmp_path / "cifar10", {"train": 5, "test": 2}, ("dog", "cat"))
    images = CIFAR10.load(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0] * 5 + [1] * 5 + [0] * 2 + [1] * 2
    assert images[0][0].shape == (3, 32, 32)
    picture(tmp_path / "cifar10/test/cat/cat_0.png", size=(31, 32))
    with pytest.raises(DataError, match=r"cat_0.png has 32x31 pixels .* the other images 32x32"):
        images.batch(images.split.query)


def test_what_is_wrong_with_a_batch_of_cifar_is_said(tmp_path):
    place = cifar10(tmp_path)
    write_pickle(place / "data_batch_2", {"labels": [0, 1], "data": rows(2)[:, :100]})
    assert "data_batch_2 holds no array 'data' of rows of 3072 bytes" in failure(CIFAR10, tmp_path)
    write_pickle(place / "data_batch_2", {"labels": [0, "1"], "data": rows(2)})
    assert "data_batch_2 holds no list 'labels' of one whole number for each of its 2" in failure(CIFAR10, tmp_path)
    write_pickle(place / "data_batch_2", {"labels": [0, 7], "data": rows(2)})
    assert "labels 0 … 7, but 2 class names" in failure(CIFAR10, tmp_path)
    write_pickle(place / "data_batch_2", {"labels": [0], "data": rows(1)})
    assert "holds 9 training and 4 test images" in failure(CIFAR10, tmp_path)
    write_pickle(place / "batches.meta", {"names": []})
    assert "batches.meta holds no list 'label_names'" in failure(CIFAR10, tmp_path)
    (place / "data_batch_5").unlink()
    assert "lacks data_batch_5" in failure(CIFAR10, tmp_path)


def test_views_of_images_in_memory_depend_on_draws_and_slot_alone(tmp_path):
    images = CIFAR10.load(cifar10(tmp_path).parent)
    index, slot = torch.tensor([3, 3, 5]), torch.tensor([6, 7, 10])
    views = images.views(index, slot, Draws(0))
    assert not torch.equal(views[0], views[1])
    assert torch.equal(images.views(index.flip(0), slot.flip(0), Draws(0)), views.flip(0))
    assert not torch.equal(images.views(index, slot, Draws(1)), views)
    assert images.batch(index).equal(images.images.values[index].float() / 255)


def test_the_first_classes_of_the_subset_train_on_train_and_the_last_test_on_test(tmp_path):
    images = SUBSET.load(subset(tmp_path).parent)
    assert images.class_names == ("apple", "bear", "cup", "dog")
    assert images.zero_shot
    train, test = ([images.images.names[i] for i in rows.tolist()] for rows in (images.split.train, images.split.query))
    assert train == [f"train/{c}/{c}_{i}.png" for c in ("apple", "bear") for i in range(2)]
    assert test == [f"test/{c}/{c}_{i}.png" for c in ("cup", "dog") for i in range(3)]


def test_the_subset_is_read_from_its_archive_in_place(tmp_path):
    place = subset(tmp_path / "a")
    (tmp_path / "b").mkdir()
    packed(tmp_path / "b/cifar100-250.zip", place)
    folder, archive = SUBSET.load(tmp_path / "a"), SUBSET.load(tmp_path / "b")
    index = torch.arange(len(folder))
    assert torch.equal(folder.batch(index), archive.batch(index))
    assert folder.labels.equal(archive.labels)
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["cifar100-250.zip"]


def test_omniglot_has_characters_as_classes(tmp_path):
    images = OMNIGLOT.load(omniglot(tmp_path).parent)
    assert images.shape == (1, 28, 28)
    assert images.zero_shot
    assert images.class_names[-1] == "Latin/character02"
    assert images.batch(torch.arange(12)).min() < 1
    assert replace(OMNIGLOT, image_size=105).load(tmp_path)[0][0].unique().tolist() == [0, 1]


def test_alphabets_of_both_small_sets_train_alone(tmp_path):
    images = OMNIGLOT_SMALL.load(omniglot(tmp_path, small=True).parent)
    tested = {images.class_names[i] for i in images.labels[images.split.query].tolist()}
    assert tested == {"Greek/character01", "Greek/character02"}


def test_omniglot_is_read_from_its_archives_in_place(tmp_path):
    place = omniglot(tmp_path / "a")
    (tmp_path / "b/omniglot").mkdir(parents=True)
    for half in ("images_background", "images_evaluation"):
        packed(tmp_path / f"b/omniglot/{half}.zip", place / half)
    folder, archive = OMNIGLOT.load(tmp_path / "a"), OMNIGLOT.load(tmp_path / "b")
    assert folder.class_names == archive.class_names
    index = torch.arange(12)
    assert torch.equal(folder.batch(index), archive.batch(index))
    packed(tmp_path / "b/omniglot/images_background.zip", place / "images_background/Latin/character01", "flat")
    assert "images of images_background lie in ALPHABET/CHARACTER/" in failure(OMNIGLOT, tmp_path / "b")


@pytest.mark.parametrize(("folder", "val"), [("ILSVRC/Data/CLS-LOC", "val"), ("ILSVRC/Data/CLS-LOC", "val-symlink"),
                                             ("imagenet-1k", "val")])  # fmt: skip
def test_imagenet_has_the_same_classes_in_both_halves(tmp_path, folder, val):
    images = IMAGENET.load(imagenet(tmp_path, folder, val).parents[folder.count("/")])
    assert images.class_names == ("n01", "n02", "n03")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2]
    assert images.images.names[6] == f"{val}/n01/n01_0.JPEG"
    assert not images.zero_shot


def test_validation_images_without_class_folders_are_refused(tmp_path):
    place = imagenet(tmp_path)
    for path in sorted((place / "val").rglob("*.JPEG")):
        path.rename(place / "val" / path.name)
    assert "val has no class folders with images. Sort the validation images" in failure(IMAGENET, tmp_path)


@pytest.mark.real
def test_the_real_subset(real_data):
    images = Cifar100Subset().load(real_data)
    assert (len(images.split.train), len(images.split.query)) == (10_000, 2_500)
    assert images.labels[images.split.train].bincount().tolist() == [200] * 50
    assert images.labels[images.split.query].bincount()[50:].tolist() == [50] * 50
    assert images.class_names[0] == "apple"
    assert sorted(images.class_names) == list(images.class_names)
    some = images.batch(images.split.query[::100])
    assert some.shape == (25, 3, 32, 32)
    assert some.std() > 0.1
    assert dataset("cifar100-250") == Cifar100Subset()


@pytest.mark.real
def test_the_real_small_sets_of_omniglot(real_data):
    images = OmniglotSmall().load(real_data)
    assert (len(images.split.train), len(images.split.query)) == (2720, 2120)
    assert set(images.labels.bincount().tolist()) == {20}
    alphabets = [{images.class_names[i].split("/")[0] for i in images.labels[half].tolist()}
                 for half in (images.split.train, images.split.query)]  # fmt: skip
    assert not alphabets[0] & alphabets[1]
    assert 0.7 < images.batch(torch.arange(0, len(images), 50)).mean() < 1
