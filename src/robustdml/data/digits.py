"""The handwritten digits that come with scikit-learn: a data set that is always there."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from robustdml.data.images import ImageSet, Pixels, Split
from robustdml.draws import Draws


@dataclass(frozen=True)
class Digits:
    """1797 handwritten digits of 8x8 pixels in 17 grey levels (Alpaydin and Kaynak 1998; UCI test set).

    Every fifth image of each class, in a random order that is the same on every machine, is a test image. The 360 test
    images are both query set and gallery, the other 1437 train.
    """

    name: ClassVar[str] = "digits"
    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    split_sizes: ClassVar[tuple[int, int]] = (1437, 360)

    def places(self, root: Path | None = None) -> list[Path]:
        """No files: the images are part of scikit-learn."""
        return []

    def obtain(self, root: Path | None = None) -> str:
        """How to get what is missing."""
        return "Nothing to get: the images come with scikit-learn."

    def load(self, root: Path | None = None) -> ImageSet:
        """The images in memory. Pixels are multiples of 1/16, exact in float32; `root` is not needed."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        labels = torch.from_numpy(bunch.target).long()
        pixels = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
        names = tuple(str(digit) for digit in range(self.num_classes))
        return ImageSet(self.name, Pixels(pixels, top=16), labels, _stratified(labels), names)


def _stratified(labels: Int[Tensor, "n"]) -> Split:
    """Images sorted by class, in random order within each; every fifth tests. Both parts are then in random order."""
    rows = torch.arange(len(labels))
    shuffled = Draws(0, "digits").bits("split", rows).argsort(stable=True)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    tests = torch.zeros(len(labels), dtype=torch.bool)
    tests[grouped[::5]] = True
    query = shuffled[tests[shuffled]]
    return Split(shuffled[~tests[shuffled]], query, query)
