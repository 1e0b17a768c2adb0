"""Any folder of images: one folder per class."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet, Split
from robustdml.draws import Draws

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
"""Names of image files end in one of these, in lower or upper case."""
_ORIENTATION = 0x0112  # the EXIF tag; values from 5 on exchange width and height
_MIXED_SIZE = 224
_ENLARGED = {224: 256}


@dataclass(frozen=True)
class Folder:
    """A folder with one folder of images per class, on the command line `folder:PATH`.

    With `train/` and `test/` below it, each with one folder per class, these are the split. Otherwise whole classes are
    drawn for the test, so that training and test classes are disjoint. The test images are both query set and gallery.

    Args:
        path: the folder; `~` is the home directory.
        image_size: height and width of the decoded images. Images are resized without regard to their aspect ratio,
            for 224 to 256 and then cropped to the centre (the protocol of the retrieval benchmarks). None: the size
            that all images share, untouched, else 224.
        test_fraction: share of the classes that become test classes, in (0, 1); at least one, and at most all but one.
        seed: draws the test classes.

    Raises:
        ValueError: for an impossible `image_size` or `test_fraction`.
    """

    path: str
    image_size: int | None = None
    test_fraction: float = 0.5
    seed: int = 0
    num_classes: ClassVar[None] = None
    shape: ClassVar[None] = None
    split_sizes: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"Folder needs image_size >= 1 (pixels) or None, got {self.image_size}.")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"Folder needs 0 < test_fraction < 1, a share of the classes; got {self.test_fraction}.")

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return f"folder:{self.path}"

    def places(self, root: Path | None = None) -> list[Path]:
        """The folder itself; it is never searched for below a data root."""
        return [Path(self.path).expanduser()]

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return (
            f"Make {self.path}/CLASS/IMAGE with one folder per class, or {self.path}/train/CLASS/IMAGE and "
            f"{self.path}/test/CLASS/IMAGE. File names end in {' '.join(sorted(SUFFIXES))}."
        )

    def load(self, root: Path | None = None) -> ImageSet:
        """Lists the images; they are decoded when asked for, as RGB, three channels even where all are grey.

        Without `image_size` the headers of the images are read as well.

        Raises:
            DataError: if the folder is missing or empty, has no two classes, or holds an empty image file.
        """
        [folder] = self.places()
        if not folder.is_dir():
            what = "a file, not a folder" if folder.exists() else "missing"
            raise DataError(f"{folder} is {what}. {self.obtain()}")
        train, test = self._halves(folder)
        names = tuple(sorted({*train, *test}))
        number = {name: i for i, name in enumerate(names)}
        listed = [(path, number[name]) for half in (train, test) for name in sorted(half) for path in half[name]]
        paths = tuple(path for path, _ in listed)
        file_sizes = _file_sizes(paths)
        resize, crop = self._sizes(paths)
        trained = sum(map(len, train.values()))
        rows = torch.arange(len(paths))
        return ImageSet(
            name=self.name,
            images=Files(folder, paths, file_sizes, resize, crop),
            labels=torch.tensor([label for _, label in listed]),
            split=Split(rows[:trained], rows[trained:], rows[trained:]),
            class_names=names,
        )

    def _halves(self, folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """Images by class, for training and for testing."""
        given = [half for half in ("train", "test") if (folder / half).is_dir()]
        if len(given) == 2:
            train, test = _classes(folder / "train"), _classes(folder / "test")
        elif given and any(path.is_dir() for path in (folder / given[0]).iterdir()):
            other = "test" if given == ["train"] else "train"
            raise DataError(f"{folder} has {given[0]}/ but no {other}/. {self.obtain()}")
        else:
            classes = _classes(folder)
            tested = self._test_classes(sorted(classes))
            train = {name: paths for name, paths in classes.items() if name not in tested}
            test = {name: paths for name, paths in classes.items() if name in tested}
        if len({*train, *test}) < 2:
            raise DataError(f"{folder} has one class, {next(iter(train))!r}; ranking needs two. {self.obtain()}")
        for role, half in (("training", train), ("test", test)):
            if len(half) == 1:
                _warn(f"{folder}: there is one {role} class, {next(iter(half))!r}, hence no image of another class.")
            _warn_of(folder, f"{role} classes have a single image", [n for n, paths in half.items() if len(paths) == 1])
        return train, test

    def _sizes(self, paths: tuple[Path, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) to resize to, and of the centre to keep."""
        shared = _common_size(paths) if self.image_size is None else None
        if shared:
            return shared, shared
        size = self.image_size or _MIXED_SIZE
        enlarged = _ENLARGED.get(size, size)
        return (enlarged, enlarged), (size, size)

    def _test_classes(self, names: list[str]) -> set[str]:
        count = min(max(round(self.test_fraction * len(names)), 1), len(names) - 1)
        order = Draws(self.seed, "folder").permutation("test classes", torch.zeros(1, dtype=torch.long), len(names))[0]
        return {names[i] for i in order[:count].tolist()}


@dataclass(frozen=True, eq=False)
class Files:
    """Images on disk, decoded when asked for.

    Attributes:
        folder: what the fingerprint names the paths from.
        paths: one image each.
        file_sizes: bytes of each.
        resize: (height, width) to which every image is resized, bilinearly.
        crop: (height, width) of its centre that is kept.
    """

    folder: Path
    paths: tuple[Path, ...]
    file_sizes: tuple[int, ...]
    resize: tuple[int, int]
    crop: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return 3, *self.crop

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The images at `index`, decoded in parallel: float32 RGB, pixels in [0, 1].

        Raises:
            DataError: if an image cannot be read.
        """
        height, width = self.crop
        top, left = (self.resize[0] - height) // 2, (self.resize[1] - width) // 2
        with ThreadPoolExecutor() as threads:  # Pillow decodes and resizes outside the interpreter lock
            images = list(threads.map(lambda i: decode(self.paths[i], self.resize), index.tolist()))
        stacked = torch.stack(images) if images else torch.empty(0, 3, *self.resize)
        return stacked[:, :, top : top + height, left : left + width].contiguous()

    def fingerprint(self) -> str:
        """SHA-256 of image size, relative file names and file sizes; the files are not read."""
        digest = hashlib.sha256(repr((self.resize, self.crop)).encode())
        for path, size in zip(self.paths, self.file_sizes):
            digest.update(os.fsencode(path.relative_to(self.folder).as_posix()) + f"\0{size}\0".encode())
        return digest.hexdigest()


def decode(path: Path, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """An image file as upright RGB of `size` (height, width): float32, pixels in [0, 1].

    Transparent parts are seen on white. 16-bit grey counts from 0 to 65535. Of several frames the first is taken, with
    a warning.

    Raises:
        DataError: if the file cannot be decoded, or floating-point pixels leave [0, 1].
    """
    from PIL import ImageOps

    with _opened(path) as image:
        # MPO files are photographs with a preview or a second view. Formats without frames lack the attribute.
        frames = image.format != "MPO" and getattr(image, "is_animated", False)
        pixels = _pixels(ImageOps.exif_transpose(image), size)
    if frames:
        _warn(f"{path} has several frames; the first is used.")
    return pixels


def _pixels(image: "Image.Image", size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits: convert("RGB") would clip
        grey = np.asarray(image, np.float32) / (1 if image.mode == "F" else 65535)
        if not (grey.min() >= 0 and grey.max() <= 1):
            raise ValueError(f"grey values {grey.min():g} … {grey.max():g} of white, expected 0 … 1")
        deep = _resized(Image.fromarray(grey), size)
        return torch.from_numpy(np.array(deep)).clamp(0, 1).expand(3, *size)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(_resized(image.convert("RGB"), size))).permute(2, 0, 1).float() / 255


def _resized(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    from PIL import Image

    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder, sorted; hidden files are passed over.

    Raises:
        DataError: if there is none.
    """
    listed = {path.name: _files(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    images = {name: [path for path in files if path.suffix.lower() in SUFFIXES] for name, files in listed.items()}
    if not any(images.values()):
        found = f"{len(listed)} folders without images" if listed else "no folders"
        raise DataError(
            f"{folder} holds {found}, expected one folder of images per class. "
            f"File names of images end in {' '.join(sorted(SUFFIXES))}."
        )
    _warn_of(folder, "classes without images are skipped", [name for name, paths in images.items() if not paths])
    skipped = [path for path in chain(*listed.values()) if path.suffix.lower() not in SUFFIXES]
    _warn_of(
        folder, "files are not images by their name and are skipped", [str(p.relative_to(folder)) for p in skipped]
    )
    return {name: paths for name, paths in images.items() if paths}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def _file_sizes(paths: tuple[Path, ...]) -> tuple[int, ...]:
    sizes = tuple(path.stat().st_size for path in paths)
    if 0 in sizes:
        raise DataError(f"{paths[sizes.index(0)]} is an empty file, not an image. Replace or remove it.")
    return sizes


def _common_size(paths: tuple[Path, ...]) -> tuple[int, int] | None:
    """The upright (height, width) that all images share, read from their headers; None at the first that differs."""
    first = _upright_size(paths[0])
    return first if all(_upright_size(path) == first for path in paths[1:]) else None


def _upright_size(path: Path) -> tuple[int, int]:
    with _opened(path) as image:
        # Without this test Pillow decodes a whole PNG in search of EXIF data behind the pixels.
        has_exif = image.format != "PNG" or "exif" in image.info
        turned = has_exif and image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def _opened(path: Path) -> Iterator["Image.Image"]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # decoders raise anything, from SyntaxError to struct.error, on damaged files
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be read as an image ({reason}). Replace or remove it.") from error


def _warn_of(folder: Path, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        _warn(f"{folder}: {len(names)} {what}: {shown}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
