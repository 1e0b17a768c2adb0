import numpy as np
import pytest
import torch
from PIL import Image

from robustdml.data.decode import decode as decode_view
from robustdml.data.errors import DamagedImages, DataError
from robustdml.data.folder import Folder
from robustdml.data.stores import Directory
from robustdml.data.transforms import CentreCrop, RandomCrop, Unchanged

RED = (255, 0, 0)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (6, 4), RED)).save(path, **options)
    return path


def fill(folder, classes, images=2):
    for name in classes:
        for i in range(images):
            save(folder / name / f"{i}.png", Image.new("RGB", (6, 4), (i, 0, 0)))
    return folder


def decode(path, size):
    """The image unchanged, or resized to a square."""
    transform = CentreCrop(size[0], size[0]) if size[0] == size[1] else Unchanged()
    return decode_view(Directory(path.parent), path.name, transform, torch.zeros(0))


def rgb(path, size=(4, 6)):
    """The colour at the centre, 0 … 255."""
    image = decode(path, size)
    assert image.dtype == torch.float32
    assert image.shape == (3, *size)
    return (image[:, size[0] // 2, size[1] // 2] * 255).round().int().tolist()


def failure(folder, **options):
    with pytest.raises(DataError) as caught:
        Folder(str(folder), **options).load()
    return str(caught.value)


def test_given_halves_are_the_split(tmp_path):
    fill(tmp_path / "train", "ab")
    fill(tmp_path / "test", "bc", images=3)
    images = Folder(str(tmp_path)).load()
    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert images.split.train.tolist() == [0, 1, 2, 3]
    assert images.split.query.equal(images.split.gallery)
    assert images.split.query.tolist() == list(range(4, 10))
    assert not images.zero_shot
    assert images.name == f"folder:{tmp_path}"


def test_without_halves_whole_classes_are_drawn_for_the_test(tmp_path):
    fill(tmp_path, "abcdefgh")
    images = Folder(str(tmp_path), test_fraction=0.25).load()
    assert images.zero_shot
    assert images.labels[images.split.query].unique().numel() == 2
    assert len(images.split.train) + len(images.split.query) == len(images) == 16
    for i in range(len(images)):
        assert images.images.names[i].split("/")[0] == images.class_names[images[i][1]]


def test_the_seed_draws_the_test_classes(tmp_path):
    fill(tmp_path, "abcdefgh")

    def drawn(seed):
        images = Folder(str(tmp_path), seed=seed).load()
        return tuple(images.labels[images.split.query].unique().tolist())

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(8)}) > 1


def test_both_halves_keep_a_class_whatever_the_fraction(tmp_path):
    fill(tmp_path, "abc")
    for fraction in (0.01, 0.99):
        with pytest.warns(UserWarning, match="there is one"):
            images = Folder(str(tmp_path), test_fraction=fraction).load()
        assert len(images.split.train)
        assert len(images.split.query)


def test_a_shared_size_is_kept_and_mixed_sizes_become_224(tmp_path):
    fill(tmp_path, "abcd")
    images = Folder(str(tmp_path)).load()
    assert images.shape == (3, 4, 6)
    assert images.batch(torch.tensor([3, 0])).shape == (2, 3, 4, 6)
    assert images.batch(torch.empty(0, dtype=torch.long)).shape == (0, 3, 4, 6)
    save(tmp_path / "d" / "2.png", Image.new("RGB", (5, 4)))
    assert Folder(str(tmp_path)).load().shape == (3, 224, 224)
    assert Folder(str(tmp_path), image_size=9).load()[0][0].shape == (3, 9, 9)


def test_224_is_the_centre_of_256(tmp_path):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(256, 0)
    fill(tmp_path, "abcd", images=0)
    for name in "abcd":
        save(tmp_path / name / "0.png", Image.fromarray(ramp))
        save(tmp_path / name / "1.png", Image.fromarray(ramp))
    image, _, _ = Folder(str(tmp_path), image_size=224).load()[0]
    assert (image[0, 0] * 255).round().tolist() == list(range(16, 240))


def test_resizing_ignores_the_aspect_ratio(tmp_path):
    halves = Image.new("RGB", (20, 4), RED)
    halves.paste((0, 0, 255), (10, 0, 20, 4))
    image = decode(save(tmp_path / "x.png", halves), (8, 8))
    assert image[:, 4, 0].tolist() == [1, 0, 0]
    assert image[:, 4, 7].tolist() == [0, 0, 1]


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_colour_models_become_rgb(tmp_path, mode):
    path = save(tmp_path / "x.jpg", Image.new("RGB", (6, 4), RED).convert(mode), quality=100, subsampling=0)
    assert np.allclose(rgb(path), RED, atol=3)


def test_grey_becomes_three_equal_channels(tmp_path):
    assert rgb(save(tmp_path / "x.png", Image.new("L", (6, 4), 77))) == [77] * 3
    assert rgb(save(tmp_path / "y.png", Image.new("1", (6, 4), 1))) == [255] * 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_not_clipped(tmp_path, suffix):
    deep = Image.fromarray(np.full((4, 6), 30_000, np.uint16))
    path = save(tmp_path / f"x.{suffix}", deep)
    assert decode(path, (4, 6)).unique().item() == pytest.approx(30_000 / 65_535, abs=1e-6)
    assert decode(path, (9, 9)).mean().item() == pytest.approx(30_000 / 65_535, abs=1e-6)


def test_floating_point_grey_must_lie_in_the_unit_interval(tmp_path):
    path = save(tmp_path / "x.tif", Image.fromarray(np.full((4, 6), 0.25, np.float32)))
    assert decode(path, (4, 6)).unique().item() == 0.25
    path = save(tmp_path / "y.tif", Image.fromarray(np.full((4, 6), 7, np.float32)))
    with pytest.raises(DataError, match=r"y.tif .*grey values 7 … 7 of white, expected 0 … 1"):
        decode(path, (4, 6))


def test_palettes_become_their_colours(tmp_path):
    assert rgb(save(tmp_path / "x.png", Image.new("RGB", (6, 4), RED).convert("P"))) == list(RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_seen_on_white(tmp_path, mode):
    clear = Image.new(mode, (6, 4), 0)
    assert rgb(save(tmp_path / "x.png", clear)) == [255] * 3
    opaque = Image.new("RGBA", (6, 4), (*RED, 255)).convert(mode)
    assert rgb(save(tmp_path / "y.png", opaque)) == list(opaque.convert("RGB").getpixel((0, 0)))


def test_a_transparent_palette_entry_is_seen_on_white(tmp_path):
    path = save(tmp_path / "x.png", Image.new("P", (6, 4), 0), transparency=0)
    assert rgb(path) == [255] * 3


def test_photographs_are_turned_upright(tmp_path):
    sideways = Image.new("RGB", (6, 4), RED)
    sideways.paste((0, 0, 255), (0, 0, 3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise is due: left becomes top
    for name in "abcd":
        for i in range(2):
            save(tmp_path / name / f"{i}.jpg", sideways, exif=exif, quality=100, subsampling=0)
            save(tmp_path / name / f"{i}.png", sideways, exif=exif)
    images = Folder(str(tmp_path)).load()
    assert images.shape == (3, 6, 4)
    for image, _, _ in images:
        assert torch.allclose(image[:, 0, 0], torch.tensor([0.0, 0, 1]), atol=0.05)
        assert torch.allclose(image[:, 5, 0], torch.tensor([1.0, 0, 0]), atol=0.05)


def test_the_first_frame_of_an_animation_is_used_with_a_warning(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, (0, 255, 0))]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"moving.gif has several frames; the first is used"):
        assert rgb(path) == list(RED)


def test_damaged_images_are_named(tmp_path):
    fill(tmp_path, "abcd")
    whole = (tmp_path / "a/0.png").read_bytes()
    for content in (whole[:40], whole[:20], b"not an image", whole[:45] + b"\xff" * 20 + whole[65:]):
        (tmp_path / "a/0.png").write_bytes(content)
        images = Folder(str(tmp_path), image_size=4).load()
        damaged = images.images.names.index("a/0.png")
        with pytest.raises(DataError, match=r"a/0.png cannot be read as an image .* Replace or remove it"):
            images.batch(torch.arange(len(images)))
        assert images[damaged - 1][2] >= 0


def test_files_without_content_are_found_before_training(tmp_path):
    fill(tmp_path, "abcd")
    (tmp_path / "c/0.png").write_bytes(b"")
    message = failure(tmp_path)
    assert "1 image files are empty" in message
    assert "c/0.png" in message


def test_a_file_that_is_no_image_is_named_when_it_is_read_and_not_before(tmp_path):
    """So that training can leave it out."""
    fill(tmp_path, "abcd")
    (tmp_path / "b/0.png").write_text("text")
    data = Folder(str(tmp_path)).load()
    with pytest.raises(DamagedImages, match=r"b/0.png cannot be read as an image .UnidentifiedImageError"):
        data.batch(torch.arange(len(data)))
    for file in tmp_path.glob("*/*.png"):
        file.write_text("text")
    assert "cannot be read as an image (UnidentifiedImageError" in failure(tmp_path)


def test_a_missing_path_says_what_to_make(tmp_path):
    message = failure(tmp_path / "none")
    assert f"{tmp_path / 'none'} is missing. Make {tmp_path / 'none'}/CLASS/IMAGE" in message
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in failure(tmp_path / "file")


def test_folders_without_images_say_what_was_found(tmp_path):
    assert "holds no folders, expected one folder of images per class" in failure(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/readme.txt").write_text("")
    message = failure(tmp_path)
    assert "holds 1 folders without images" in message
    assert ".jpg .pbm" in message


def test_one_class_is_refused(tmp_path):
    fill(tmp_path, ["cats"])
    assert "has one class, 'cats'; ranking needs two" in failure(tmp_path)
    fill(tmp_path / "halves/train", ["cats"])
    fill(tmp_path / "halves/test", ["cats"])
    assert "has one class, 'cats'; ranking needs two" in failure(tmp_path / "halves")


def test_one_half_alone_is_refused(tmp_path):
    fill(tmp_path / "train", "ab")
    assert "has train/ but no test/" in failure(tmp_path)


def test_classes_without_images_are_skipped_and_named(tmp_path):
    fill(tmp_path, "abcd")
    (tmp_path / "void").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.warns(UserWarning, match="1 classes without images are skipped: void"):
        assert Folder(str(tmp_path)).load().num_classes == 4


def test_a_class_with_one_image_is_kept_and_named(tmp_path):
    fill(tmp_path, "abcd")
    (tmp_path / "b/1.png").unlink()
    with pytest.warns(UserWarning, match="classes have a single image: b"):
        images = Folder(str(tmp_path)).load()
    assert (images.labels == 1).sum() == 1


def test_other_files_are_skipped_and_hidden_ones_ignored(tmp_path):
    fill(tmp_path, "abcd")
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "a/._0.png").write_text("")
    with pytest.warns(UserWarning, match=r"1 files are not images by their name and are skipped: a/notes.txt"):
        assert len(Folder(str(tmp_path)).load()) == 8


def test_the_fingerprint_follows_names_sizes_and_split_but_not_the_place(tmp_path):
    one, two = (Folder(str(fill(tmp_path / place, "abcd"))) for place in ("one", "two"))
    assert one.load().fingerprint() == two.load().fingerprint()
    save(tmp_path / "two/a/0.png", Image.effect_noise((6, 4), 90))
    renamed = fill(tmp_path / "three", "abcd") / "a/0.png"
    renamed.rename(renamed.with_name("00.png"))
    prints = {
        spec.load().fingerprint()
        for spec in (
            one,
            two,
            Folder(str(tmp_path / "three")),
            Folder(one.path, image_size=5),
            Folder(one.path, seed=3),
        )
    }
    assert len(prints) == 5


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="image_size >= 1"):
        Folder("x", image_size=0)
    with pytest.raises(ValueError, match="0 < test_fraction < 1"):
        Folder("x", test_fraction=1.0)


def test_training_sees_random_parts_if_asked_for(tmp_path):
    for name in "abcd":
        for i in range(2):
            save(tmp_path / name / f"{i}.png", Image.new("RGB", (16, 16), (0, 40 * i, 0)))
    images = Folder(str(tmp_path), augment=True).load()
    assert images.images.train == RandomCrop(16, 16, padding=2)
    assert images.images.test == CentreCrop(16, 16)
    assert Folder(str(tmp_path), image_size=224, augment=True).load().images.train == RandomCrop(224, 256)
    assert images.batch(torch.tensor([0])).shape == (1, 3, 16, 16)
    save(tmp_path / "d/1.png", Image.new("RGB", (5, 4)))
    assert Folder(str(tmp_path), augment=True).load().images.train == RandomCrop(224, 256)


def test_random_parts_need_square_images(tmp_path):
    fill(tmp_path, "abcd")
    assert "random parts are cut from square images, these have 4x6 pixels" in failure(tmp_path, augment=True)


def test_an_image_that_changed_its_size_is_named(tmp_path):
    fill(tmp_path, "abcd")
    images = Folder(str(tmp_path)).load()
    save(tmp_path / images.images.names[0], Image.new("RGB", (5, 4)))
    with pytest.raises(DataError, match=r"has 4x5 pixels \(height x width\), the other images 4x6"):
        images.batch(torch.tensor([0, 1]))


def test_test_classes_that_are_trained_on_as_well_are_told(tmp_path):
    fill(tmp_path / "train", "abc")
    fill(tmp_path / "test", "bcde")
    assert "2 of 4 test classes are trained on as well (b, c)" in Folder(str(tmp_path)).load().note
    fill(tmp_path / "same/train", "abc")
    fill(tmp_path / "same/test", "abc")
    assert Folder(str(tmp_path / "same")).load().note == ""
