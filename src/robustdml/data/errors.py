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
    """Images of a batch that cannot be decoded; the message shows the first five.

    Attributes:
        reasons: what is wrong, one line per image.
        index: which rows of the image set they are.
    """

    def __init__(self, reasons: list[str], index: Int[Tensor, "d"]) -> None:
        more = [f"… and {len(reasons) - 5} more"] if len(reasons) > 5 else []
        super().__init__("\n".join([*reasons[:5], *more]))
        self.reasons, self.index = reasons, index

    def __reduce__(self) -> tuple[type["DamagedImages"], tuple[list[str], Int[Tensor, "d"]]]:
        """Errors cross the border between processes."""
        return type(self), (self.reasons, self.index)
