"""Every key of every golden file is checked by a test, or named here as not built yet."""

import importlib
import re

import pytest

from tests.golden.conftest import golden_of

PENDING = {
    "attacks": [
        r"e2e/[CEN]/(SPQA|FOA|SPFOA|transfer_|nes_)[^/]*/",
        r"e2e/[CEN]/(CA\+|QA-)_dist/",
        r"e2e/nes$",
        r"loss/[CEN]/(QADIST|CADIST)[+-]/",
        r"loss/[CEN]/FOA(2|X)/",
        r"loss/idx_foa(2|x)$",
        r"net/(surrogate|classifier)/",
        r"select/[CEN]/(qaminus_preserve|qaplus_preserve|foa2_preserve|foax_preserve|foa2|foax|local)_idx$",
        r"select/[CEN]/(foa_perm|local_draw)$",
        r"(xi|eccv_schedule|class)/",
    ],
    "defenses": [
        r"hm_[^.]*\.",
        r"lga\.",
    ],
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
