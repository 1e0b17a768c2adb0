"""CUB-200-2011: photographs of birds."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustdml.data.decode import is_image
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, Remote, load, walk
from robustdml.data.listing import (
    PUBLISHED_TEST,
    PUBLISHED_TRAIN,
    Counts,
    class_folders,
    image_set,
    inside,
    numbers,
    table,
)
from robustdml.data.transforms import Transform, check_views

_LISTS = ("images.txt", "image_class_labels.txt")


@dataclass(frozen=True)
class Cub:
    """CUB-200-2011 (Wah et al. 2011): birds of 200 species; the first 100 train, the others are queries and gallery.

    The folder is recognised with `images.txt` and `image_class_labels.txt`, whose ids give the order, and without them,
    where the folders of `images/` are the classes and file names give the order.

    Args:
        train: views for training.
        test: the view of evaluations.
        expected: training images, test images, training classes, test classes.
    """

    train: Transform = PUBLISHED_TRAIN
    test: Transform = PUBLISHED_TEST
    expected: Counts = (5864, 5924, 100, 100)
    name: ClassVar[str] = "cub"
    layout: ClassVar[Layout] = Layout(
        folders=("CUB_200_2011",),
        needed=(("images", *_LISTS), ("images",)),
        taken=("classes.txt", "train_test_split.txt", "bounding_boxes.txt"),
        largest=4 << 30,
        instructions="CUB_200_2011.tgz is at https://data.caltech.edu/records/65de6-vp158 (1.2 GB).",
        remote=Remote(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            md5="97eceeb196236b17998738112f37df78",
            size=2 << 30,
        ),
    )

    def __post_init__(self) -> None:
        check_views(self.name, self.train, self.test)

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return sum(self.expected[2:])

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
            DataError: if files are missing or not those of CUB-200-2011.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `CUB_200_2011`.

        Raises:
            DataError: if they are not those of CUB-200-2011.
        """
        lists = [name for name in _LISTS if (place / name).exists()]
        if len(lists) == 1:
            raise DataError(f"{place} has {lists[0]} but not {({*_LISTS} - {*lists}).pop()}; it needs both or neither.")
        listed = self._listed(place) if lists else self._found(place)
        trained = [path for path, number in listed if number < self.expected[2]]
        tested = [path for path, number in listed if number >= self.expected[2]]
        label = dict(listed)
        names = {number: Path(path).parent.name for path, number in listed}
        return image_set(
            self.name,
            place,
            trained + tested,
            [label[path] for path in trained + tested],
            len(trained),
            [names.get(number, str(number + 1)) for number in range(max(names, default=-1) + 1)],
            train=self.train,
            test=self.test,
            expected=self.expected,
        )

    def _listed(self, place: Path) -> list[tuple[str, int]]:
        """(path, class from 0) in the order of the ids in the list files."""
        images, classes = (dict(table(place / name, 2)) for name in _LISTS)
        if images.keys() != classes.keys():
            raise DataError(f"{place}: {_LISTS[0]} lists {len(images)} images, {_LISTS[1]} {len(classes)} others.")
        ids = sorted(numbers([*images], place / _LISTS[0]))
        labels = numbers([classes[str(i)] for i in ids], place / _LISTS[1])
        if 0 in labels:
            raise DataError(f"{place / _LISTS[1]} has a class 0; classes are counted from 1.")
        paths = inside([images[str(i)] for i in ids], place / _LISTS[0])
        return [(f"images/{path}", label - 1) for path, label in zip(paths, labels)]

    def _found(self, place: Path) -> list[tuple[str, int]]:
        """(path, class from 0) of the image files, by folder and name."""
        listed = class_folders(walk(place, is_image), "images/")
        order = {name: i for i, name in enumerate(sorted({name for _, name in listed}))}
        return [(path, order[name]) for path, name in listed]
