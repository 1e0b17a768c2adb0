"""Shape checks at run time, repeatable property tests, and the option that points golden tests at another directory."""

from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("robustdml", "beartype.beartype")
settings.register_profile("same-every-time", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("same-every-time")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--golden-dir", type=Path, default=GOLDEN, help="directory of golden *.npz files to test against")
