"""Image files, decoded when asked for."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import get_worker_info

from robustdml.data.decode import Channels, decode
from robustdml.data.errors import DamagedImages, DataError
from robustdml.data.stores import Store
from robustdml.data.transforms import Transform
from robustdml.draws import Draws


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images in files, decoded when asked for.

    Attributes:
        store: folder or archive that holds the files.
        names: one file per image.
        sizes: bytes of each.
        shape: (channels, height, width) of every view.
        train: random views.
        test: the view of evaluations.
    """

    store: Store
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, int, int]
    train: Transform
    test: Transform

    @property
    def channels(self) -> Channels:
        """3 for RGB, 1 for grey."""
        return 1 if self.shape[0] == 1 else 3

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def batch(self, index: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """The test views at `index`, decoded in parallel: float32, pixels in [0, 1].

        Raises:
            DamagedImages: if images cannot be read; all of the batch that cannot are named.
        """
        return self._decoded(index, self.test, torch.zeros(len(index), self.test.numbers, dtype=torch.float64))

    def views(self, index: Int[Tensor, "b"], slot: Int[Tensor, "b"], draws: Draws) -> Float[Tensor, "b c h w"]:
        """Random views of the images at `index` for training; row i depends on `draws`, `slot[i]` and its image alone.

        Raises:
            DamagedImages: as `batch`.
        """
        return self._decoded(index, self.train, draws.uniform("view", slot, (self.train.numbers,), torch.float64))

    def fingerprint(self) -> str:
        """SHA-256 of shape, transforms, file names and file sizes; the files are not read."""
        digest = hashlib.sha256(repr((self.shape, self.train, self.test)).encode())
        for name, size in zip(self.names, self.sizes):
            digest.update(os.fsencode(name) + f"\0{size}\0".encode())
        return digest.hexdigest()

    def _decoded(
        self, index: Int[Tensor, "b"], transform: Transform, numbers: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c h w"]:
        def view(k: int) -> Float[Tensor, "c h w"] | DataError:
            try:
                return self._view(self.names[int(index[k])], transform, numbers[k])
            except DataError as error:
                return error

        if get_worker_info() is not None or len(index) < 2:  # the other cores have workers of their own
            made = [view(k) for k in range(len(index))]
        else:
            with ThreadPoolExecutor() as threads:  # Pillow decodes and resizes outside the interpreter lock
                made = list(threads.map(view, range(len(index))))
        damaged = {i: str(found) for i, found in zip(index.tolist(), made) if isinstance(found, DataError)}
        if damaged:
            raise DamagedImages([*damaged.values()], torch.tensor([*damaged]))
        views = [found for found in made if isinstance(found, Tensor)]
        return torch.stack(views) if views else torch.empty(0, *self.shape)

    def _view(self, name: str, transform: Transform, numbers: Float[Tensor, "k"]) -> Float[Tensor, "c h w"]:
        found = decode(self.store, name, transform, numbers, self.channels)
        if tuple(found.shape) != self.shape:
            raise DataError(
                f"{self.store.where(name)} has {found.shape[1]}x{found.shape[2]} pixels (height x width), the other "
                f"images {self.shape[1]}x{self.shape[2]}. Resize it, or set an image size in the recipe's data."
            )
        return found
