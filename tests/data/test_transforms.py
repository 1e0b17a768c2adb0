"""Views of images, checked against torchvision."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustdml.data.decode import as_tensor
from robustdml.data.transforms import (
    TRANSFORMS,
    CentreCrop,
    RandomCrop,
    RandomResizedCrop,
    Transform,
    Unchanged,
    check_views,
)
from robustdml.draws import Draws
from robustdml.models.vision import import_timm


@pytest.fixture(scope="module")
def torchvision():
    """torchvision's transforms; timm's import repairs a torchvision that does not load."""
    import_timm()
    return importlib.import_module("torchvision.transforms.functional")


def image(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def view(transform, picture, numbers=()):
    """What `decode` does after opening a file."""
    drawn = torch.tensor([list(numbers)], dtype=torch.float64)
    return transform.crop(as_tensor(transform.resize(picture, list(numbers)), 3)[None], drawn)[0]


SIZES = pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256), (40, 90), (31, 17)])


@SIZES
def test_the_test_view_is_torchvisions(torchvision, width, height):
    picture = image(width, height)
    whole = torchvision.resize(picture, [40, 40])
    expected = torchvision.to_tensor(torchvision.center_crop(whole, [33, 33]))
    assert torch.equal(view(CentreCrop(33, 40), picture), expected)
    kept = torchvision.to_tensor(torchvision.center_crop(torchvision.resize(picture, 40), [33, 33]))
    assert torch.equal(view(CentreCrop(33, 40, shorter=True), picture), kept)


@SIZES
def test_a_random_part_is_torchvisions_at_the_same_place(torchvision, width, height):
    picture = image(width, height)
    whole = torchvision.resize(picture, [40, 40])
    for numbers in ((0.0, 0.0, 0.9), (0.5, 0.99999, 0.1), (0.3, 0.7, 0.5)):
        top, left = (int(n * (40 - 33 + 1)) for n in numbers[:2])
        expected = torchvision.crop(whole, top, left, 33, 33)
        expected = torchvision.hflip(expected) if numbers[2] < 0.5 else expected
        assert torch.equal(view(RandomCrop(33, 40), picture, numbers), torchvision.to_tensor(expected))


def test_the_views_of_cifar_are_torchvisions(torchvision):
    picture = image(32, 32)
    padded = torchvision.pad(torchvision.to_tensor(picture), [4])
    for numbers in ((0.0, 0.0, 0.9), (0.99999, 0.5, 0.1), (0.3, 0.7, 0.5)):
        top, left = (int(n * 9) for n in numbers[:2])
        expected = torchvision.crop(padded, top, left, 32, 32)
        expected = torchvision.hflip(expected) if numbers[2] < 0.5 else expected
        assert torch.equal(view(RandomCrop(32, None, padding=4), picture, numbers), expected)


@SIZES
def test_a_random_part_of_random_size_is_torchvisions_of_the_same_box(torchvision, width, height):
    picture, transform = image(width, height), RandomResizedCrop(24)
    for seed in range(5):
        numbers = Draws(seed).uniform("n", torch.tensor([0]), (transform.numbers,), torch.float64)[0].tolist()
        left, top, right, bottom = transform.box(width, height, numbers)
        expected = torchvision.resized_crop(picture, top, left, bottom - top, right - left, [24, 24])
        expected = torchvision.hflip(expected) if numbers[-1] < 0.5 else expected
        assert torch.equal(view(transform, picture, numbers), torchvision.to_tensor(expected))


@given(st.integers(2, 400), st.integers(2, 400), st.integers(0, 10_000))
def test_random_parts_lie_in_the_image_and_keep_area_and_aspect(width, height, seed):
    numbers = Draws(seed).uniform("n", torch.tensor([0]), (41,), torch.float64)[0].tolist()
    left, top, right, bottom = RandomResizedCrop().box(width, height, numbers)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 100:
        area, aspect = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
        assert aspect == pytest.approx(min(max(aspect, 0.72), 1.39))
        assert area > 0.07


def test_the_distribution_of_random_areas_is_torchvisions(torchvision):
    """Means over 2000 boxes agree within four standard errors."""
    transforms = importlib.import_module("torchvision.transforms")
    draws = Draws(0).uniform("n", torch.arange(2000), (41,), torch.float64).tolist()
    ours = np.array([RandomResizedCrop().box(300, 200, numbers) for numbers in draws], float)
    picture = torch.empty(3, 200, 300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        get = transforms.RandomResizedCrop.get_params
        theirs = np.array([get(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)], float)
    theirs = np.stack([theirs[:, 1], theirs[:, 0], theirs[:, 1] + theirs[:, 3], theirs[:, 0] + theirs[:, 2]], axis=1)
    for mine, other in ((ours, theirs), ((ours[:, 2:] - ours[:, :2]) ** 2, (theirs[:, 2:] - theirs[:, :2]) ** 2)):
        error = np.sqrt((mine.var(axis=0) + other.var(axis=0)) / 2000)
        assert (np.abs(mine.mean(axis=0) - other.mean(axis=0)) < 4 * error).all()


def test_an_impossible_part_falls_back_to_the_centre(torchvision):
    """Ten draws that do not fit: as torchvision, the largest centre with an allowed aspect ratio."""
    numbers = [0.999, 0.999, 0.0, 0.0] * 10 + [0.9]  # the whole area at 4:3 never fits into 10:100
    assert RandomResizedCrop().box(10, 100, numbers) == (0, 43, 10, 56)


def test_places_are_uniform_and_half_the_views_are_mirrored():
    pixels = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).expand(6000, -1, -1, -1)
    numbers = Draws(0).uniform("view", torch.arange(6000), (3,), torch.float64)
    views = RandomCrop(4, None).crop(pixels, numbers)
    mirrored = views[:, 0, 0, 0] > views[:, 0, 0, 1]
    corner = torch.where(mirrored, views[:, 0, 0, 3], views[:, 0, 0, 0])
    counts = torch.stack([(corner == 6 * r + c).sum() for r in range(3) for c in range(3)])
    assert int(counts.sum()) == 6000
    assert counts.sub(6000 / 9).abs().max() < 5 * (6000 / 9) ** 0.5
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.03


def test_padding_is_zero_and_every_place_is_reached():
    pixels = torch.full((500, 1, 4, 4), 9, dtype=torch.uint8)
    views = RandomCrop(4, None, padding=1, mirror=False).crop(
        pixels, Draws(0).uniform("view", torch.arange(500), (3,), torch.float64)
    )
    assert views.dtype == torch.uint8
    assert set(views.flatten(1).eq(9).sum(dim=1).tolist()) == {9, 12, 16}


@pytest.mark.parametrize("transform", [cls() for cls in TRANSFORMS.values()], ids=list(TRANSFORMS))
def test_every_transform_keeps_its_protocol(transform):
    assert isinstance(transform, Transform)
    numbers = Draws(0).uniform("n", torch.tensor([1]), (transform.numbers,), torch.float64)[0].tolist()
    found = view(transform, image(280, 260), numbers)
    side = transform.side
    assert found.shape == ((3, side, side) if side else (3, 260, 280))
    empty = torch.empty(0, 3, *([transform.stored or side or 260] * 2))
    assert len(transform.crop(empty, torch.empty(0, transform.numbers, dtype=torch.float64))) == 0


def test_impossible_transforms_are_refused():
    with pytest.raises(ValueError, match="224 pixels does not fit into an image resized to 100"):
        CentreCrop(224, 100)
    with pytest.raises(ValueError, match="size >= 1 and padding >= 0"):
        RandomCrop(0)
    with pytest.raises(ValueError, match=r"0 < area\[0\]"):
        RandomResizedCrop(area=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"0 < ratio\[0\]"):
        RandomResizedCrop(ratio=(2.0, 1.0))
    with pytest.raises(ValueError, match="training views have side 224, test views None"):
        check_views("x", RandomCrop(), Unchanged())
