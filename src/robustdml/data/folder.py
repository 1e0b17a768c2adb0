"""Any folder of images: one folder per class."""

import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

import torch

from robustdml.data.decode import SUFFIXES, common_size, is_image
from robustdml.data.encoded import Encoded
from robustdml.data.errors import DataError, MissingData
from robustdml.data.images import ImageSet, Split
from robustdml.data.listing import present
from robustdml.data.stores import Directory
from robustdml.data.transforms import CentreCrop, RandomCrop, Transform, Unchanged
from robustdml.draws import Draws

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
        augment: whether training sees random parts, mirrored half the time: of the image resized to 256 for 224, else
            of the image with a margin of an eighth of zeros. Images must be square then.

    Raises:
        ValueError: for an impossible `image_size` or `test_fraction`.
    """

    path: str
    image_size: int | None = None
    test_fraction: float = 0.5
    seed: int = 0
    augment: bool = False
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
            if folder.exists():
                raise DataError(f"{folder} is a file, not a folder. {self.obtain()}")
            raise MissingData(f"{folder} is missing. {self.obtain()}")
        train, test, note = self._halves(folder)
        names = tuple(sorted({*train, *test}))
        number = {name: i for i, name in enumerate(names)}
        listed = [(path, number[name]) for half in (train, test) for name in sorted(half) for path in half[name]]
        files = tuple(path.relative_to(folder).as_posix() for path, _ in listed)
        store = Directory(folder)
        sizes = present(store, files, self.name)
        shape, views = self._views(store, files)
        trained = sum(map(len, train.values()))
        rows = torch.arange(len(files))
        return ImageSet(
            name=self.name,
            images=Encoded(store, files, sizes, shape, *views),
            labels=torch.tensor([label for _, label in listed]),
            split=Split(rows[:trained], rows[trained:], rows[trained:]),
            class_names=names,
            note=note,
        )

    def _halves(self, folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]], str]:
        """Images by class, for training and for testing, and how they were told apart."""
        note = ""
        given = [half for half in ("train", "test") if (folder / half).is_dir()]
        if len(given) == 2:
            train, test = _classes(folder / "train"), _classes(folder / "test")
            shared = sorted({*train} & {*test})
            if shared and {*train} != {*test}:
                note = (
                    f"{len(shared)} of {len(test)} test classes are trained on as well ({', '.join(shared[:3])}"
                    f"{', …' if len(shared) > 3 else ''}), the others are not: scores mix both"
                )
        elif given and any(path.is_dir() for path in (folder / given[0]).iterdir()):
            other = "test" if given == ["train"] else "train"
            raise DataError(f"{folder} has {given[0]}/ but no {other}/. {self.obtain()}")
        else:
            classes = _classes(folder)
            tested = self._test_classes(sorted(classes))
            train = {name: paths for name, paths in classes.items() if name not in tested}
            test = {name: paths for name, paths in classes.items() if name in tested}
            note = (
                f"the folder has no train/ and test/: {len(test)} of its {len(classes)} classes were drawn for the "
                f"test with seed {self.seed} (test_fraction {self.test_fraction:g}); they are not trained on"
            )
        if len({*train, *test}) < 2:
            raise DataError(f"{folder} has one class, {next(iter(train))!r}; ranking needs two. {self.obtain()}")
        for role, half in (("training", train), ("test", test)):
            if len(half) == 1:
                _warn(f"{folder}: there is one {role} class, {next(iter(half))!r}, hence no image of another class.")
            _warn_of(folder, f"{role} classes have a single image", [n for n, paths in half.items() if len(paths) == 1])
        return train, test, note

    def _views(
        self, store: Directory, files: tuple[str, ...]
    ) -> tuple[tuple[int, int, int], tuple[Transform, Transform]]:
        """Shape of the images, and how they are brought to it in training and in tests."""
        shared = common_size(store, files) if self.image_size is None else None
        if shared and not self.augment:
            return (3, *shared), (Unchanged(), Unchanged())
        if shared and shared[0] != shared[1]:
            height, width = shared
            raise DataError(
                f"{store.path}: random parts are cut from square images, these have {height}x{width} pixels. Set "
                "image_size, or leave augment off."
            )
        size = shared[0] if shared else self.image_size or _MIXED_SIZE
        enlarged = _ENLARGED.get(size, size)
        test = CentreCrop(size, enlarged)
        random = RandomCrop(size, enlarged, padding=0 if enlarged > size else size // 8)
        return (3, size, size), (random if self.augment else test, test)

    def _test_classes(self, names: list[str]) -> set[str]:
        count = min(max(round(self.test_fraction * len(names)), 1), len(names) - 1)
        order = Draws(self.seed, "folder").permutation("test classes", torch.zeros(1, dtype=torch.long), len(names))[0]
        return {names[i] for i in order[:count].tolist()}


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder, sorted; hidden files are passed over.

    Raises:
        DataError: if there is none.
    """
    listed = {path.name: _files(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
    images = {name: [path for path in files if is_image(path.name)] for name, files in listed.items()}
    if not any(images.values()):
        found = f"{len(listed)} folders without images" if listed else "no folders"
        raise DataError(
            f"{folder} holds {found}, expected one folder of images per class. "
            f"File names of images end in {' '.join(sorted(SUFFIXES))}."
        )
    _warn_of(folder, "classes without images are skipped", [name for name, paths in images.items() if not paths])
    skipped = [path for path in chain(*listed.values()) if not is_image(path.name)]
    _warn_of(
        folder, "files are not images by their name and are skipped", [str(p.relative_to(folder)) for p in skipped]
    )
    return {name: paths for name, paths in images.items() if paths}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def _warn_of(folder: Path, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        _warn(f"{folder}: {len(names)} {what}: {shown}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)
