"""Shape checks at run time, and the option that points the golden tests at another directory."""

from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook("robustdml", "beartype.beartype")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--golden-dir", type=Path, default=GOLDEN, help="directory of golden *.npz files to test against")
