"""Decoded images on disk: one file of bytes, read through the page cache of the system."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from robustdml.data.encoded import Encoded
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.loading import ahead
from robustdml.data.sources import cache_folder
from robustdml.data.transforms import CentreCrop, RandomCrop, Transform, Unchanged
from robustdml.draws import Draws
from robustdml.files import OutputError, beside

_BATCH = 256
_SPEAK_EVERY = 10_000


@dataclass(frozen=True, eq=False)
class Cached:
    """Images decoded once and resized; every process maps the same file.

    Attributes:
        source: the files they come from, whose views and fingerprint these are.
        path: the file of bytes [n c h w].
    """

    source: Encoded
    path: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every view."""
        return self.source.shape

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The test views at `index`: those of the source, to the last bit."""
        numbers = torch.zeros(len(index), self.source.test.numbers, dtype=torch.float64)
        return self.source.test.crop(self._bytes(index), numbers).float() / 255

    def views(self, index: Int[Tensor, "b"], slot: Int[Tensor, "b"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """Random views of the images at `index` for training: those of the source, to the last bit."""
        numbers = draws.uniform("view", slot, (self.source.train.numbers,), torch.float64)
        return self.source.train.crop(self._bytes(index), numbers).float() / 255

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()

    def _bytes(self, index: Int[Tensor, "b"]) -> UInt8[Tensor, "b c h w"]:
        return torch.from_numpy(np.load(self.path, mmap_mode="r")[index.numpy()])


def cached(data: ImageSet, root: Path | None = None, report: Callable[[str], None] = lambda line: None) -> ImageSet:
    """The same image set with its images decoded once, resized, and kept on disk as bytes.

    The file is called after the fingerprint and lies in `decoded/` below `root`, or the user's cache; it is there
    completely or not at all. It takes one byte per value before cropping: 196 608 for an RGB image of 256x256. Views,
    scores and fingerprint are those without it, to the last bit. Image sets in memory are returned as they are.

    Args:
        report: receives one line before the work begins, with its bytes, and one every ten thousand images.

    Raises:
        DataError: if an image cannot be decoded, or has more than 8 bits.
        OutputError: if there is no room.
        ValueError: if images are not resized to one size before they are cut.
    """
    source = data.images
    if not isinstance(source, Encoded):
        return data
    whole = _whole(data.name, source)
    shape = (len(source), source.shape[0], *([whole.size] * 2 if isinstance(whole, CentreCrop) else source.shape[1:]))
    key = hashlib.sha256(f"{source.fingerprint()}|{shape}".encode()).hexdigest()[:32]
    path = cache_folder(root) / "decoded" / f"{data.name.rpartition('/')[2].replace(':', '-')}-{key}.npy"
    if not path.exists():
        _write(path, replace(source, test=whole, shape=shape[1:]), shape, report)
    return replace(data, images=Cached(source, path))


def _whole(name: str, source: Encoded) -> CentreCrop | Unchanged:
    """The transform that resizes as both views do, and cuts nothing."""
    train, test = source.train, source.test
    sizes = {train.stored, test.stored}
    if len(sizes) > 1 or not all(_kept(t) for t in (train, test)):
        raise ValueError(
            f"{name}: decoded images can be kept only if training and test views are cut from images resized to one "
            f"size; here they are {type(train).__name__} and {type(test).__name__}."
        )
    size = sizes.pop()
    return CentreCrop(size, size) if size else Unchanged()


def _kept(transform: Transform) -> bool:
    """Whether `resize` does the same to every image, or nothing."""
    return transform.stored is not None or isinstance(transform, (Unchanged, RandomCrop))


def _write(path: Path, source: Encoded, shape: tuple[int, ...], report: Callable[[str], None]) -> None:
    size = int(np.prod(shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OutputError(
            f"{path} would take {size:,} bytes, and {free:,} are free. Free some space, or name another folder with "
            "--data-root."
        )
    report(f"decoding {shape[0]} images into {path} ({size:,} bytes)")
    with beside(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        done = 0
        for images in ahead(source.batch, torch.arange(shape[0]).split(_BATCH)):
            file.write(_in_bytes(images, source).numpy().tobytes())
            done += len(images)
            if done % _SPEAK_EVERY < _BATCH:
                report(f"decoded {done} of {shape[0]} images")


def _in_bytes(images: Float[Tensor, "b c h w"], source: Encoded) -> UInt8[Tensor, "b c h w"]:
    scaled = images * 255
    if float((scaled - scaled.round()).abs().max()) > 1e-3:
        raise DataError(
            f"{source.store.where('')} has images of more than 8 bits per value, which the cache would round. Leave it "
            "off."
        )
    return scaled.round().to(torch.uint8)
