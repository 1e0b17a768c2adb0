"""From a list of files and classes to an image set, with the checks that every data set on disk needs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from robustdml.data.decode import is_image
from robustdml.data.encoded import Encoded
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet, Split
from robustdml.data.layout import expect, some
from robustdml.data.stores import Directory, Store
from robustdml.data.transforms import CentreCrop, RandomCrop, Transform

Counts = tuple[int, int, int, int]
"""Training images, test images, training classes, test classes."""
PUBLISHED_TRAIN = RandomCrop()
"""Training views of the 224x224 retrieval data sets (arXiv:2106.03614)."""
PUBLISHED_TEST = CentreCrop()
"""Their test view."""
Listed = Sequence[tuple[str, str]]
"""(file, class) of images."""


def image_set(
    name: str,
    place: Path,
    names: Sequence[str],
    labels: Sequence[int],
    trained: int,
    class_names: Sequence[str],
    *,
    train: Transform,
    test: Transform,
    expected: Counts,
    store: Store | None = None,
    shape: tuple[int, int, int] | None = None,
    disjoint: bool = True,
) -> ImageSet:
    """Files and their classes as an image set: training images first, then those that are query set and gallery.

    Args:
        place: what messages call the whole.
        labels: rows of `class_names`, known without opening an image.
        trained: how many of the first files are training images.
        expected: published counts.
        store: where the files are; by default below `place`.
        shape: (channels, height, width) of the views; by default RGB of the size that the test transform gives.
        disjoint: whether training and test classes must differ.

    Raises:
        DataError: if counts differ, a class is in both halves, a file is listed twice, or files are missing or empty.
        ValueError: if neither `shape` nor `test` says how large the views are.
    """
    if shape is None and test.side is None:
        raise ValueError(f"{name}: images differ in size; the test transform must bring them to one.")
    known = torch.as_tensor(labels, dtype=torch.long)
    halves = known[:trained].unique(), known[trained:].unique()
    expect(name, place, (trained, len(names) - trained, *map(len, halves)), expected)
    shared = halves[0][torch.isin(halves[0], halves[1])].tolist()
    if shared and disjoint:
        raise DataError(
            f"{place}: {len(shared)} classes are in both halves: {some(class_names[c] for c in shared)}. Training and "
            f"test classes of {name} are disjoint."
        )
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(f"{place} lists {len(twice)} images more than once: {some(twice)}.")
    files = store or Directory(place)
    rows = torch.arange(len(names))
    side = test.side or 0
    return ImageSet(
        name,
        Encoded(files, tuple(names), present(files, names, name), shape or (3, side, side), train, test),
        known,
        Split(rows[:trained], rows[trained:], rows[trained:]),
        tuple(class_names),
    )


def class_folders(files: Iterable[str], below: str) -> list[tuple[str, str]]:
    """(file, class) of the images in one folder per class below `below`, by class and file name."""
    found = [(file.removeprefix(below).partition("/"), file) for file in files if file.startswith(below)]
    return sorted(
        ((file, name) for (name, slash, _), file in found if slash and is_image(file)), key=lambda pair: pair[::-1]
    )


def labelled(train: Listed, test: Listed) -> tuple[list[str], list[int], list[str]]:
    """Files, labels and class names, the latter sorted; training images first."""
    names = sorted({name for _, name in [*train, *test]})
    number = {name: i for i, name in enumerate(names)}
    return [file for file, _ in [*train, *test]], [number[name] for _, name in [*train, *test]], names


def present(store: Store, names: Sequence[str], name: str) -> tuple[int, ...]:
    """Bytes of files that must be there.

    Raises:
        DataError: with the number and the first of those that are missing or empty.
    """
    sizes = [store.size(n) for n in names]
    missing = [n for n, size in zip(names, sizes) if size is None]
    if missing:
        raise DataError(
            f"{name}: {len(missing)} of {len(names)} listed images are missing, the first at "
            f"{store.where(missing[0])}: {some(missing)}."
        )
    empty = [n for n, size in zip(names, sizes) if size == 0]
    if empty:
        raise DataError(f"{name}: {len(empty)} image files are empty: {some(map(store.where, empty))}. Replace them.")
    return tuple(size or 0 for size in sizes)


def table(path: Path, columns: int, *, header: bool = False) -> list[list[str]]:
    """The lines of a text file, cut into `columns` words at blanks; empty lines are passed over.

    Raises:
        DataError: if the file is no text, or a line has fewer words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from error
    rows = []
    for number, line in enumerate(lines[header:], start=1 + header):
        words = line.split(maxsplit=columns - 1)
        if not words:
            continue
        if len(words) != columns:
            raise DataError(f"{path}, line {number}: expected {columns} words, found {line!r}.")
        rows.append(words)
    return rows


def numbers(words: Sequence[str], path: Path) -> list[int]:
    """Words as whole numbers.

    Raises:
        DataError: with the first that is none.
    """
    wrong = next((word for word in words if not word.isdecimal()), None)
    if wrong is not None:
        raise DataError(f"{path}: expected a whole number, found {wrong!r}.")
    return [int(word) for word in words]


def inside(names: Sequence[str], path: Path) -> list[str]:
    """Paths of images, which must stay in the data set.

    Raises:
        DataError: with the first that leaves it.
    """
    wrong = next((n for n in names if n.startswith("/") or "\\" in n or "/../" in f"/{n}/"), None)
    if wrong is not None:
        raise DataError(f"{path} lists {wrong!r}, which is outside the data set.")
    return list(names)
