"""Shape checks at run time, repeatable tests, and the option that points golden tests at another directory."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: bits repeat with equal threads
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the suite in the background ignores it
install_import_hook("robustdml", "beartype.beartype")
settings.register_profile("same-every-time", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("same-every-time")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--golden-dir", type=Path, default=GOLDEN, help="directory of golden *.npz files to test against")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """Weights and dropout, which draw from the global generator, do not depend on which tests ran before."""
    torch.manual_seed(0)
