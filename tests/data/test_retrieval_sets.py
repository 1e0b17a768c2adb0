"""CUB, Cars and SOP in the layouts in which they are found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from robustdml.data import Cars, Cub, Sop
from robustdml.data.errors import DataError
from robustdml.data.transforms import CentreCrop, RandomCrop
from tests.data.fakes import CARS, CUB, SOP, cars, cub, picture, sop


def failure(spec, root):
    with pytest.raises(DataError) as caught:
        spec.load(root)
    return str(caught.value)


def test_published_counts_and_views():
    assert Cub().expected == (5864, 5924, 100, 100)
    assert Cars().expected == (8054, 8131, 98, 98)
    assert Sop().expected == (59551, 60502, 11318, 11316)
    for spec in (Cub(), Cars(), Sop()):
        assert (spec.train, spec.test) == (RandomCrop(224, 256), CentreCrop(224, 256))
        assert spec.shape == (3, 224, 224)
        assert spec.num_classes == sum(spec.expected[2:])


@pytest.mark.parametrize(("spec", "make"), [(CUB, cub), (CARS, cars), (SOP, sop)])
def test_classes_are_disjoint_and_known_without_opening_an_image(tmp_path, spec, make):
    place = make(tmp_path)
    for path in [*place.rglob("*.jpg"), *place.rglob("*.JPG")]:
        path.write_bytes(b"no image")
    images = spec.load(tmp_path)
    assert images.zero_shot
    assert images.labels[images.split.train].unique().tolist() == list(range(spec.expected[2]))
    assert images.labels.unique().tolist() == list(range(spec.num_classes))


@pytest.mark.parametrize(("spec", "make"), [(CUB, cub), (CARS, cars), (SOP, sop)])
def test_listed_images_that_are_missing_are_counted_and_named(tmp_path, spec, make):
    place = make(tmp_path)
    images = sorted([*place.rglob("*.jpg"), *place.rglob("*.JPG")])
    for path in images[:2]:
        path.unlink()
    said = failure(spec, tmp_path)
    assert f"2 of {len(images)} listed images are missing" in said
    assert str(images[0].relative_to(place)) in said
    assert f"robustdml data {spec.name} --from ARCHIVE" in said
    images[0].write_bytes(b"")
    picture(images[1])
    assert "1 image files are empty" in failure(spec, tmp_path)


def test_birds_without_lists_are_those_with_lists(tmp_path):
    listed = CUB.load(cub(tmp_path / "a").parent)
    found = CUB.load(cub(tmp_path / "b", lists=False).parent)
    assert listed.images.names == found.images.names
    assert listed.labels.equal(found.labels)
    assert listed.class_names == found.class_names == tuple(f"{i:03d}.Bird_{i}" for i in range(1, 6))
    assert listed.fingerprint() == found.fingerprint()


def test_birds_are_in_the_order_of_their_ids_wherever_they_stand_in_the_list(tmp_path):
    images = CUB.load(cub(tmp_path, order=[2, 1, 4, 3, 6, 5, 8, 7, 10, 9]).parent)
    assert images.images.names[:4] == tuple(f"images/{c:03d}.Bird_{c}/b_{c}_{i}.jpg" for c in (1, 2) for i in (1, 0))
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_what_is_wrong_with_the_lists_of_birds_is_said(tmp_path):
    place = cub(tmp_path)
    labels = place / "image_class_labels.txt"
    before = labels.read_text()
    labels.unlink()
    assert "has images.txt but not image_class_labels.txt" in failure(CUB, tmp_path)
    labels.write_text(before + "11 5\n")
    assert "lists 10 images" in failure(CUB, tmp_path)
    labels.write_text(before.replace("1 1\n", "1 x\n", 1))
    assert "expected a whole number, found 'x'" in failure(CUB, tmp_path)
    labels.write_text(before.replace("1 1\n", "1\n", 1))
    assert "expected 2 words, found '1'" in failure(CUB, tmp_path)
    labels.write_text(before)
    (place / "images.txt").write_text((place / "images.txt").read_text().replace("001.Bird_1/b_1_0", "../../secret"))
    assert "lists '../../secret.jpg', which is outside the data set" in failure(CUB, tmp_path)
    (place / "images.txt").write_bytes(b"\xff\xfe\x00")
    assert "images.txt cannot be read as text" in failure(CUB, tmp_path)


def test_an_image_listed_twice_is_refused(tmp_path):
    place = cub(tmp_path)
    (place / "images.txt").write_text((place / "images.txt").read_text().replace("b_1_1.jpg", "b_1_0.jpg"))
    assert "lists 1 images more than once: images/001.Bird_1/b_1_0.jpg" in failure(CUB, tmp_path)


@pytest.mark.parametrize("folder", ["cars", "cars196"])
@pytest.mark.parametrize("names", [True, False])
def test_cars_are_sorted_by_path_and_counted_from_0(tmp_path, folder, names):
    images = CARS.load(cars(tmp_path, folder, names).parent)
    assert list(images.images.names) == sorted(images.images.names)
    assert images.labels.tolist() == [i // 2 for i in range(10)]
    assert images.class_names[4] == ("Car 4" if names else "5")


def test_annotations_that_are_none_are_refused(tmp_path):
    place = cars(tmp_path)
    file = place / "cars_annos.mat"
    good = file.read_bytes()
    for damaged in (b"", b"text", good[:500]):
        file.write_bytes(damaged)
        assert "cars_annos.mat cannot be read as MATLAB annotations" in failure(CARS, tmp_path)
    savemat(file, {"other": np.zeros(3)})
    assert "holds no structure 'annotations'" in failure(CARS, tmp_path)
    savemat(file, {"annotations": np.zeros(3)})
    assert "holds no structure 'annotations'" in failure(CARS, tmp_path)
    kind = [(name, "O") for name in "abcdef"]
    savemat(file, {"annotations": np.array([[("car_ims/000001.jpg", 1, 1, 1, 1, 0)]], dtype=kind)})
    assert "a class below 1" in failure(CARS, tmp_path)


@pytest.mark.parametrize("folder", ["Stanford_Online_Products", "Standford_Online_Products"])
def test_goods_are_in_the_order_of_their_ids(tmp_path, folder):
    images = SOP.load(sop(tmp_path, folder).parent)
    assert [name.rpartition("_")[2] for name in images.images.names] == [f"{i}.JPG" for i in range(1, 10)]
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 2, 3, 2, 3]
    assert images.class_names == ("chair 1", "table 2", "chair 3", "table 4")


def test_a_class_in_both_lists_of_goods_is_refused(tmp_path):
    place = sop(tmp_path)
    file = place / "Ebay_test.txt"
    file.write_text(file.read_text().replace("\n8 3 1 ", "\n8 2 1 "))
    said = failure(replace(SOP, expected=(5, 4, 2, 3)), tmp_path)
    assert "1 classes are in both halves: table 2" in said
    file.write_text("image_id class_id super_class_id path\n")
    assert "Ebay_test.txt lists no images" in failure(SOP, tmp_path)


def test_a_loaded_set_decodes_its_two_views(tmp_path):
    images = CUB.load(cub(tmp_path).parent)
    index = torch.arange(10)
    assert images.batch(index).shape == (10, 3, 6, 6)
    whole = replace(CUB, train=CentreCrop(8, 8), test=CentreCrop(8, 8)).load(tmp_path).batch(index)
    assert torch.equal(images.batch(index), whole[:, :, 1:7, 1:7])
