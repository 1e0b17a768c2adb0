"""Golden files: read once, and cases named from what they hold."""

from functools import cache

import numpy as np
import pytest
import torch


@cache
def load(directory, name):
    path = directory / f"{name}.npz"
    if not path.exists():
        raise FileNotFoundError(f"golden file {path} is missing; give --golden-dir a directory that holds it")
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


class Golden:
    """One golden file as tensors."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __contains__(self, key):
        return key in self.arrays

    def tensor(self, key):
        value = torch.from_numpy(np.array(self.arrays[key]))
        return value.long() if value.dtype in (torch.int32, torch.int16, torch.int8) else value

    def number(self, key):
        return self.arrays[key].item()

    def strings(self, key):
        return [str(s) for s in self.arrays[key].tolist()]

    def under(self, prefix):
        """The distinct next parts of keys that begin with `prefix`."""
        found = {key[len(prefix) :].split("/")[0] for key in self.arrays if key.startswith(prefix)}
        return sorted(found)


def golden_of(config, name):
    return Golden(load(config.getoption("--golden-dir"), name))


@pytest.fixture
def golden(request):
    """The golden file of the test's module: test_losses.py reads losses.npz."""
    return golden_of(request.config, request.module.FILE)


def pytest_generate_tests(metafunc):
    """Parametrises `case` with what the module's `cases(golden)` finds in the file."""
    finder = getattr(metafunc.function, "cases", None)
    if finder is not None:
        names = finder(golden_of(metafunc.config, metafunc.module.FILE))
        metafunc.parametrize("case", names, ids=str)
