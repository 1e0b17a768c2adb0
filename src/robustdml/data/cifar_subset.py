"""A small class-disjoint part of CIFAR-100 for metric learning on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from robustdml.data.cifar import PUBLISHED, View
from robustdml.data.decode import is_image
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, load, walk
from robustdml.data.listing import Counts, class_folders, image_set, labelled
from robustdml.data.stores import Directory, Store, zipped
from robustdml.data.transforms import Unchanged

_TOP = "cifar100-250"


@dataclass(frozen=True)
class Cifar100Subset:
    """CIFAR-100 with 250 images per class: the first half of the classes trains, the others are queries and gallery.

    Classes are sorted by name. The images of `train/` of the first 50 classes train (200 each), those of `test/` of the
    last 50 are both query set and gallery (50 each). The archive `cifar100-250.zip` is read in place; an unpacked
    folder is read too.

    Args:
        train: views for training.
        expected: training images, test images, training classes, test classes.
    """

    train: View = PUBLISHED
    expected: Counts = (10_000, 2_500, 50, 50)
    name: ClassVar[str] = _TOP
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    layout: ClassVar[Layout] = Layout(
        folders=(_TOP, "."),
        needed=(("train", "test"), (f"{_TOP}.zip",)),
        largest=1 << 29,
        instructions=(
            f"Put {_TOP}.zip into the data root. It holds {_TOP}/train/CLASS/IMAGE.png (200 per class) and "
            f"{_TOP}/test/CLASS/IMAGE.png (50 per class) for the 100 classes of CIFAR-100."
        ),
    )

    @property
    def num_classes(self) -> int:
        """Classes of all splits together."""
        return sum(self.expected[2:])

    @property
    def split_sizes(self) -> tuple[int, int]:
        """Numbers of training and test images."""
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
            DataError: if files are missing or their numbers differ.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder, or in the archive that lies there.

        Raises:
            DataError: if their numbers differ.
        """
        archive = place / f"{_TOP}.zip"
        store: Store
        if archive.exists():
            place = archive
            store = zipped(archive)
            names, below = list(store.members), f"{_TOP}/"
        else:
            store, names, below = Directory(place), list(walk(place, is_image)), ""
        halves = [class_folders(names, f"{below}{half}/") for half in ("train", "test")]
        first = set(sorted({name for _, name in halves[0]})[: self.expected[2]])
        train = [pair for pair in halves[0] if pair[1] in first]
        test = [pair for pair in halves[1] if pair[1] not in first]
        paths, labels, class_names = labelled(train, test)
        return image_set(
            self.name, place, paths, labels, len(train), class_names,
            train=self.train, test=Unchanged(), expected=self.expected, store=store, shape=self.shape,
        )  # fmt: skip
