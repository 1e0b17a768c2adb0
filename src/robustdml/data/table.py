"""Data sets by name, for the command line and recipe files."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch

from robustdml.data import layout, sources
from robustdml.data.cars import Cars
from robustdml.data.cifar import Cifar10, Cifar100
from robustdml.data.cifar_subset import Cifar100Subset
from robustdml.data.cub import Cub
from robustdml.data.digits import Digits
from robustdml.data.errors import DamagedImages, DataError, MissingData
from robustdml.data.folder import Folder
from robustdml.data.idx import Fashion, Mnist
from robustdml.data.imagenet import ImageNet
from robustdml.data.images import ImageSet
from robustdml.data.layout import Stored
from robustdml.data.omniglot import Omniglot, OmniglotSmall
from robustdml.data.sop import Sop
from robustdml.plugins import installed


@runtime_checkable
class Dataset(Protocol):
    """Names a data set, and loads it. What only the files tell is None."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def num_classes(self) -> int | None:
        """Classes of all splits together."""
        ...

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every image."""
        ...

    @property
    def split_sizes(self) -> tuple[int, int] | None:
        """Published numbers of training and test images."""
        ...

    def places(self, root: Path | None = None) -> list[Path]:
        """Folders that are searched, in order; `root` comes first if given."""
        ...

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing, for people."""
        ...

    def load(self, root: Path | None = None) -> ImageSet:
        """The images.

        Raises:
            DataError: if files are missing, damaged or not what they claim to be.
        """
        ...


_DECODED = 64
DATASETS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "mnist": Mnist,
    "fashion": Fashion,
    "cub": Cub,
    "cars": Cars,
    "sop": Sop,
    "cifar10": Cifar10,
    "cifar100": Cifar100,
    "cifar100-250": Cifar100Subset,
    "omniglot": Omniglot,
    "omniglot-small": OmniglotSmall,
    "imagenet": ImageNet,
}


def plugged() -> dict[str, type[Dataset]]:
    """Data sets of other packages, by the name that each gives itself."""
    found = cast(Mapping[str, type[Dataset]], installed("datasets"))
    return {str(cls.name): cls for cls in found.values()}


def dataset(name: str) -> Dataset:
    """The data set called `name`: one of `DATASETS`, an installed plug-in, or `folder:PATH`.

    Raises:
        ValueError: if there is none.
    """
    kind, colon, path = name.partition(":")
    if colon and kind == "folder":
        if not path:
            raise ValueError("folder: needs a path, as in folder:photos or folder:/data/photos.")
        return Folder(path)
    known = {**DATASETS, **plugged()}
    if name in known:
        return known[name]()
    near = difflib.get_close_matches(name.lower(), [*known, "folder:PATH"], n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"There is no data set {name!r}.{hint} Known: {', '.join(known)}, folder:PATH.")


def unpack(name: str, archive: Path, root: Path | None = None) -> Path:
    """Takes a data set out of an archive, checks it, and returns the folder it is in.

    Raises:
        DataError: if the archive is missing, damaged, unsafe or something else; nothing is changed then.
        ValueError: if no archive holds this data set.
    """
    spec = dataset(name)
    return layout.unpack(spec, archive, root) if isinstance(spec, Stored) else sources.unpack(name, archive, root)


def download(name: str, root: Path | None = None, progress: sources.Progress = sources.silent) -> Path:
    """Fetches a data set, checks it, and returns the folder it is in.

    Raises:
        DataError: if there is no open mirror, or it fails or sends something else.
        ValueError: if there is nothing to fetch.
    """
    spec = dataset(name)
    return layout.download(spec, root, progress) if isinstance(spec, Stored) else sources.download(name, root, progress)


def describe(
    name: str, root: Path | None = None, *, decode: bool = False, progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, Any]:
    """What `robustdml data NAME` reports, ready for JSON.

    Args:
        decode: whether every image is decoded, to find the damaged ones.
        progress: called with images decoded and images in all.

    Returns:
        `name`; `looked_in`: folders, whether each exists, and what it holds (at most 20 names); `state`: "complete",
        "missing", or "damaged" for what is there and does not load; `complete`: whether it is; `problem`: what is
        wrong, else None; `images`: counts per role, `shape`, `zero_shot` and `fingerprint`, None while there is a
        problem; `note`: how split or images were made where that is not published; `classes`, None if unknown;
        `expected`: published counts of training and test images, None if there are none; `get`: how to get what is
        missing.

    Raises:
        ValueError: if there is no such data set.
    """
    spec = dataset(name)
    loaded, problem, state = None, None, "complete"
    try:
        loaded = spec.load(root)
        if decode:
            _decode(loaded, progress)
    except MissingData as error:
        problem, state = str(error), "missing"
    except DataError as error:
        problem, state = str(error), "damaged"
    sizes = spec.split_sizes
    split = loaded.split if loaded else None
    return {
        "name": spec.name,
        "looked_in": [
            {"path": str(place), "exists": place.is_dir(), "holds": _names(place)} for place in spec.places(root)
        ],
        "state": state,
        "complete": state == "complete",
        "problem": problem,
        "images": {role: len(getattr(split, role)) for role in ("train", "query", "gallery")} if split else None,
        "expected": {"train": sizes[0], "test": sizes[1]} if sizes else None,
        "note": loaded.note if loaded else "",
        "classes": loaded.num_classes if loaded else spec.num_classes,
        "shape": list(loaded.shape) if loaded else None,
        "zero_shot": loaded.zero_shot if loaded else None,
        "fingerprint": loaded.fingerprint() if loaded else None,
        "get": spec.obtain(root),
    }


def _decode(data: ImageSet, progress: Callable[[int, int], None]) -> None:
    """Decode every image once.

    Raises:
        DataError: with the number of damaged images, and the first of them.
    """
    damaged: list[str] = []
    done = 0
    for rows in torch.arange(len(data)).split(_DECODED):
        try:
            data.batch(rows)
        except DamagedImages as error:
            damaged += error.reasons
        done += len(rows)
        progress(done, len(data))
    if damaged:
        shown = "\n".join(f"  {line}" for line in damaged[:20])
        raise DataError(f"{len(damaged)} of {len(data)} images are damaged:\n{shown}")


def _names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())[:20] if place.is_dir() else []
