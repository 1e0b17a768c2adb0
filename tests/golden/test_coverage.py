"""Every key of every golden file is checked by a test, or named here as not built yet."""

import importlib
import re

import pytest

from tests.golden.conftest import golden_of

PENDING = {
    "attacks": [],
    "defenses": [],
    "losses": [],
    "metrics": [],
    "miners": [],
    "models_c2f2": [],
    "fpd": [r""],
    "idml": [r""],
    "lipschitz": [r""],
}
"""Key families that no test reads yet, by file, as patterns of their beginning. It ends empty."""


@pytest.mark.parametrize("name", PENDING)
def test_every_key_is_covered_or_pending_and_never_both(request, name):
    try:
        covers = importlib.import_module(f"tests.golden.test_{name}").COVERS
    except ModuleNotFoundError:
        covers = []
    for key in golden_of(request.config, name).arrays:
        covered = [p for p in covers if re.match(p, key)]
        pending = [p for p in PENDING[name] if re.match(p, key)]
        assert bool(covered) != bool(pending), f"{key}: covered by {covered}, pending by {pending}"


def test_every_golden_file_is_known(request):
    directory = request.config.getoption("--golden-dir")
    assert {p.stem for p in directory.glob("*.npz")} <= set(PENDING)
