"""Stanford Online Products: photographs of goods."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, load
from robustdml.data.listing import PUBLISHED_TEST, PUBLISHED_TRAIN, Counts, image_set, inside, numbers, table
from robustdml.data.transforms import Transform, check_views

_LISTS = ("Ebay_train.txt", "Ebay_test.txt")
_KINDS = (
    "bicycle", "cabinet", "chair", "coffee_maker", "fan", "kettle", "lamp", "mug", "sofa", "stapler", "table",
    "toaster",
)  # fmt: skip


@dataclass(frozen=True)
class Sop:
    """Stanford Online Products (arXiv:1511.06452): 22 634 things for sale; half train, half are queries and gallery.

    Images are in the order of their ids in the two list files.

    Args:
        train: views for training.
        test: the view of evaluations.
        expected: training images, test images, training classes, test classes.
    """

    train: Transform = PUBLISHED_TRAIN
    test: Transform = PUBLISHED_TEST
    expected: Counts = (59551, 60502, 11318, 11316)
    name: ClassVar[str] = "sop"
    layout: ClassVar[Layout] = Layout(
        folders=("Stanford_Online_Products", "Standford_Online_Products"),
        needed=(_LISTS,),
        taken=tuple(f"{kind}_final" for kind in _KINDS),
        largest=16 << 30,
        instructions=(
            "Stanford_Online_Products.zip (3 GB) is linked at https://cvgl.stanford.edu/projects/lifted_struct; no "
            "checksum of it is known here, so it is not downloaded."
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
            DataError: if files are missing or not those of Stanford Online Products.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `Stanford_Online_Products`.

        Raises:
            DataError: if they are not those of Stanford Online Products.
        """
        train, test = (_listed(place / name) for name in _LISTS)
        named: dict[int, str] = {}
        for path, number in train + test:
            named.setdefault(number, f"{path.partition('/')[0].removesuffix('_final')} {number}")
        order = {number: label for label, number in enumerate(sorted(named))}
        return image_set(
            self.name,
            place,
            [path for path, _ in train + test],
            [order[number] for _, number in train + test],
            len(train),
            [named[number] for number in sorted(named)],
            train=self.train,
            test=self.test,
            expected=self.expected,
        )


def _listed(path: Path) -> list[tuple[str, int]]:
    """(path, class as published) of a list file, by ascending image id."""
    rows = table(path, 4, header=True)
    if not rows:
        raise DataError(f"{path} lists no images.")
    ids, classes = (numbers([row[column] for row in rows], path) for column in (0, 1))
    names = inside([row[3] for row in rows], path)
    return [(name, label) for _, name, label in sorted(zip(ids, names, classes))]
