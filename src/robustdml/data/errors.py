"""What goes wrong with data."""


class DataError(Exception):
    """Data that are missing, damaged or not what they claim to be. The command line answers it with exit code 4."""


class PixelError(DataError, ValueError):
    """Images whose pixels are not in [0, 1]."""
