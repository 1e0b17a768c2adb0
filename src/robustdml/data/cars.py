"""Cars-196: photographs of cars."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.layout import Layout, load
from robustdml.data.listing import PUBLISHED_TEST, PUBLISHED_TRAIN, Counts, image_set, inside
from robustdml.data.transforms import Transform, check_views

_ANNOTATIONS = "cars_annos.mat"


@dataclass(frozen=True)
class Cars:
    """Cars-196 (Krause et al. 2013): cars of 196 models; the first 98 train, the others are queries and gallery.

    Images are in the order of their paths. Labels count from 0; the annotations count from 1.

    Args:
        train: views for training.
        test: the view of evaluations.
        expected: training images, test images, training classes, test classes.
    """

    train: Transform = PUBLISHED_TRAIN
    test: Transform = PUBLISHED_TEST
    expected: Counts = (8054, 8131, 98, 98)
    name: ClassVar[str] = "cars"
    layout: ClassVar[Layout] = Layout(
        folders=("cars", "cars196"),
        needed=(("car_ims", _ANNOTATIONS),),
        in_parts=True,
        largest=8 << 30,
        instructions=(
            "It has two parts: the images car_ims.tgz (1.9 GB, a folder car_ims/) and cars_annos.mat. Their first "
            "address, ai.stanford.edu/~jkrause/cars, is gone; mirrors ask for an account. Give both files to --from, "
            "one after the other, or one archive that holds both."
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
            DataError: if files are missing or not those of Cars-196.
        """
        return load(self, root)

    def read(self, place: Path) -> ImageSet:
        """The images in a folder `cars` or `cars196`.

        Raises:
            DataError: if they are not those of Cars-196.
        """
        annotated, class_names = annotations(place / _ANNOTATIONS)
        trained = [item for item in annotated if item[1] < self.expected[2]]
        tested = [item for item in annotated if item[1] >= self.expected[2]]
        classes = max((label for _, label in annotated), default=-1) + 1
        return image_set(
            self.name,
            place,
            [path for path, _ in trained + tested],
            [label for _, label in trained + tested],
            len(trained),
            class_names if len(class_names) >= classes else [str(i + 1) for i in range(classes)],
            train=self.train,
            test=self.test,
            expected=self.expected,
        )


def annotations(path: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(path of an image, class from 0) sorted by path, and class names if the file has them.

    The file holds a structure `annotations`: its first field is the path, its sixth the class, counted from 1.

    Raises:
        DataError: if it holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(str(path))
        records = content["annotations"].ravel()
        first, sixth = (records.dtype.names[i] for i in (0, 5))
        items = [(str(np.ravel(r[first])[0]), int(np.ravel(r[sixth])[0])) for r in records]
    except (MatReadError, NotImplementedError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as MATLAB annotations ({type(error).__name__}: {error}).") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path} holds no structure 'annotations' with a path in its first field and a class in its sixth "
            f"({type(error).__name__}: {error})."
        ) from error
    if any(label < 1 for _, label in items):
        raise DataError(f"{path} has a class below 1; classes are counted from 1.")
    inside([name for name, _ in items], path)
    names = content.get("class_names", np.empty(0, dtype=object))
    return sorted((name, label - 1) for name, label in items), [str(np.ravel(n)[0]) for n in np.ravel(names)]
