"""ImageNet (ILSVRC 2012): photographs of a thousand kinds of things."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustdml.data.decode import is_image
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, load, walk
from robustdml.data.listing import PUBLISHED_TEST, Counts, class_folders, image_set, labelled
from robustdml.data.transforms import RandomResizedCrop, Transform, check_views

_TRAIN = RandomResizedCrop()


@dataclass(frozen=True)
class ImageNet:
    """ImageNet (ILSVRC 2012): 1 281 167 training and 50 000 validation photographs of 1000 kinds of things.

    Folders `train/CLASS/` and `val/CLASS/`; the validation images are both query set and gallery. A validation folder
    with class folders may also be called `val-symlink`.

    Args:
        train: views for training.
        test: the view of evaluations.
        expected: training images, test images, training classes, test classes.
    """

    train: Transform = _TRAIN
    test: Transform = PUBLISHED_TEST
    expected: Counts = (1_281_167, 50_000, 1000, 1000)
    name: ClassVar[str] = "imagenet"
    layout: ClassVar[Layout] = Layout(
        folders=("ILSVRC/Data/CLS-LOC", "imagenet-1k"),
        needed=(("train", "val"), ("train", "val-symlink")),
        in_parts=True,
        largest=1 << 38,
        instructions=(
            "ImageNet is given out at https://image-net.org to people with an account. Images of train/ and val/ must "
            "lie in one folder per class (n01440764, …); the validation archive holds none, so sort it first."
        ),
    )

    def __post_init__(self) -> None:
        check_views(self.name, self.train, self.test)

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return self.expected[2]

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every view."""
        return (3, self.test.side, self.test.side) if self.test.side else None

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Published numbers of training and test images."""
        return self.expected[:2]

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order."""
        return self.layout.places(root)

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return self.layout.obtain(self.name, root)

    def load(self, root: Path | None = None) -> ImageSet:
        """Lists the images; they are decoded when asked for.

        Raises:
            DataError: if files are missing or not those of ImageNet.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `CLS-LOC`.

        Raises:
            DataError: if they are not those of ImageNet.
        """
        half = "val-symlink" if (place / "val-symlink").is_dir() else "val"
        trained, tested = (
            class_folders((f"{part}/{file}" for file in walk(place / part, is_image)), f"{part}/")
            for part in ("train", half)
        )
        if not tested:
            raise DataError(f"{place / half} has no class folders with images. Sort the validation images into them.")
        paths, labels, names = labelled(trained, tested)
        return image_set(
            self.name, place, paths, labels, len(trained), names,
            train=self.train, test=self.test, expected=self.expected, disjoint=False,
        )  # fmt: skip
