"""Image files to tensors: every file of every data set is decoded here."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robustdml.data.errors import DataError
from robustdml.data.stores import Store
from robustdml.data.transforms import Transform

if TYPE_CHECKING:
    from PIL import Image

Channels = Literal[1, 3]
SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
"""Names of image files end in one of these, in lower or upper case."""
_ORIENTATION = 0x0112  # the EXIF tag; values from 5 on exchange width and height


def decode(
    store: Store, name: str, transform: Transform, numbers: Float[Tensor, "k"], channels: Channels = 3
) -> Float[Tensor, "c h w"]:
    """One view of an image file: upright, RGB or grey, float32 with pixels in [0, 1].

    Transparent parts are seen on white. 16-bit grey counts from 0 to 65535. Of several frames the first is taken, with
    a warning.

    Raises:
        DataError: if the file cannot be decoded, or floating-point pixels leave [0, 1].
    """
    from PIL import ImageOps

    with opened(store, name) as image:
        # MPO files are photographs with a preview or a second view. Formats without frames lack the attribute.
        frames = image.format != "MPO" and getattr(image, "is_animated", False)
        upright = _in_colours(ImageOps.exif_transpose(image), channels)
        pixels = transform.crop(as_tensor(transform.resize(upright, numbers.tolist()), channels)[None], numbers[None])
    if frames:
        warnings.warn(f"{store.where(name)} has several frames; the first is used.", stacklevel=2)
    return pixels[0]


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not hidden."""
    last = name.rpartition("/")[2]
    return not last.startswith(".") and f".{last.rpartition('.')[2].lower()}" in SUFFIXES


def as_tensor(image: "Image.Image", channels: Channels) -> Float[Tensor, "c h w"]:
    """The pixels of an image in mode RGB, L or F (white is 1), in [0, 1]."""
    if image.mode == "F":
        return torch.from_numpy(np.array(image)).clamp(0, 1).expand(channels, image.height, image.width)
    values = np.array(image)
    return torch.from_numpy(values if channels == 3 else values[..., None]).permute(2, 0, 1).float() / 255


def _in_colours(image: "Image.Image", channels: Channels) -> "Image.Image":
    """In mode F if the image has more than 8 bits, else RGB or L."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):  # convert("RGB") would clip
        grey = np.asarray(image, np.float32) / (1 if image.mode == "F" else 65535)
        if not (grey.min() >= 0 and grey.max() <= 1):
            raise ValueError(f"grey values {grey.min():g} … {grey.max():g} of white, expected 0 … 1")
        return Image.fromarray(grey)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if channels == 3 else "L")


def common_size(store: Store, names: tuple[str, ...]) -> tuple[int, int] | None:
    """The upright (height, width) that all images share, read from their headers; None at the first that differs.

    Headers that cannot be read are passed over: whoever decodes the image says so, or leaves it out if that is wanted.

    Raises:
        DataError: if no header can be read.
    """
    first: tuple[int, int] | None = None
    for name in names:
        try:
            size = upright_size(store, name)
        except DataError:
            continue
        if first is None:
            first = size
        elif size != first:
            return None
    return first or upright_size(store, names[0])


def upright_size(store: Store, name: str) -> tuple[int, int]:
    """(height, width) of an image once it is turned upright, from its header.

    Raises:
        DataError: if the header cannot be read.
    """
    with opened(store, name) as image:
        # Without this test Pillow decodes a whole PNG in search of EXIF data behind the pixels.
        has_exif = image.format != "PNG" or "exif" in image.info
        turned = has_exif and image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def opened(store: Store, name: str) -> Iterator["Image.Image"]:
    """An image file; whatever goes wrong with it becomes a DataError that names it.

    Raises:
        DataError: if it cannot be read as an image.
    """
    from PIL import Image

    try:
        with store.open(name) as stream, Image.open(cast(IO[bytes], stream)) as image:
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise anything, from SyntaxError to struct.error, on damaged files
        what = re.sub("<_io[^>]*>", "the file", str(error))  # where Pillow would name an opened path
        reason = f"{type(error).__name__}: {what}"
        raise DataError(
            f"{store.where(name)} cannot be read as an image ({reason}). Replace or remove it, or train with "
            "--damaged skip."
        ) from error
