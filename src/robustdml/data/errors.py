"""What goes wrong with data."""

from jaxtyping import Int
from torch import Tensor


class DataError(Exception):
    """Data that are missing, damaged or not what they claim to be. The command line answers it with exit code 4."""


class MissingData(DataError):
    """Data that are not there at all."""


class PixelError(DataError, ValueError):
    """Images whose pixels are not in [0, 1]."""


class DamagedImages(DataError):
    """Images of a batch that cannot be decoded.

    Attributes:
        index: which rows of the image set they are.
    """

    def __init__(self, message: str, index: Int[Tensor, "d"]) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[type["DamagedImages"], tuple[str, Int[Tensor, "d"]]]:
        """Errors cross the border between processes."""
        return type(self), (str(self), self.index)
