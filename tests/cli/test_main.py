"""The command itself: overview, exit codes and how failures are told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robustdml.cli import failures
from robustdml.cli import main as command
from robustdml.data import DataError
from robustdml.data.errors import PixelError
from robustdml.files import OutputError
from robustdml.interruption import Interrupted
from robustdml.ranking import NotFiniteError
from robustdml.report.run import ResultError
from tests.cli.conftest import run

VERBS = ["demo", "train", "evaluate", "attack", "benchmark", "diagnose", "report", "compare", "list", "data", "doctor"]


def test_the_overview_names_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys; from robustdml.cli.main import main; assert main(['--help']) == 0; "
        "heavy = {'torch', 'tyro', 'numpy', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {verb} " in done.stdout for verb in VERBS)
    assert list(command.VERBS) == VERBS
    assert "examples:" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_ends_with_examples(verb, call):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"robustdml {verb}" in out.split("examples:")[1]
    assert "default" in out


def test_the_help_of_a_verb_does_not_import_torch():
    code = (
        "import sys; from robustdml.cli.main import main\n"
        "for verb in sys.argv[1:]:\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *VERBS], capture_output=True, text=True, check=True)


def test_version(call):
    assert call("--version")[:2] == (0, "robustdml 0.1.0\n")


def test_an_unknown_verb_is_answered_with_the_nearest(call):
    code, out, err = call("bencmark", "run")
    assert (code, out) == (2, "")
    assert "Did you mean benchmark?" in err


def test_an_unknown_option_is_misuse(call):
    code, _, err = call("benchmark", "run", "--profil", "rob28")
    assert code == 2
    assert "--profile" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no"), 2),
        (failures.UsageError("no"), 2),
        (FileExistsError("there"), 2),
        (DataError("gone"), 4),
        (PixelError("pixels"), 4),
        (ResultError(Path("a.json"), "x", "y", "z"), 4),
        (OutputError("full"), 1),
        (NotFiniteError("NaN"), 1),
        (FloatingPointError("NaN"), 1),
        (ImportError("extra"), 1),
        (RuntimeError("bug"), 1),
        (Interrupted("robustdml train x --resume"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_failure_has_its_exit_code(error, code):
    assert failures.explained(error)[0] == code


def test_an_unexpected_failure_is_one_line_and_points_to_debug():
    _, message = failures.explained(RuntimeError("first\nsecond"))
    assert message == "RuntimeError: first second. Run again with --debug for the traceback."


def test_tracebacks_appear_only_with_debug(here):
    assert "Traceback" not in run("compare", "missing", cwd=here)[2]
    code, _, err = run("compare", "missing", "--debug", cwd=here)
    assert code == 1
    assert "Traceback" in err


def test_a_closed_pipe_is_no_traceback(here):
    line = f"{sys.executable} -m robustdml list recipes --json | head -c 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, cwd=here)
    assert done.stderr == ""


def test_a_broken_plug_in_is_named(here, call, monkeypatch):
    package = here / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[robustdml.losses]\nBad = no_such_module:Bad\n")
    code, _, err = run("list", "losses", cwd=here, PYTHONPATH=str(here))
    assert code == 1
    assert "plug-in 'Bad' (no_such_module:Bad) of broken does not load" in err


def test_an_installed_plug_in_is_listed_and_can_be_trained(here):
    (here / "minelib.py").write_text(
        "from dataclasses import dataclass\n"
        "from robustdml.losses import Triplet\n"
        "@dataclass(frozen=True)\n"
        "class MyTriplet(Triplet):\n"
        "    '''A triplet loss of my own.'''\n"
        "def mine():\n"
        "    '''Digits with a loss of my own.'''\n"
        "    from dataclasses import replace\n"
        "    from robustdml.recipes import recipe\n"
        "    return replace(recipe('plain-digits-small'), loss=MyTriplet(), epochs=1)\n"
    )
    package = here / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[robustdml.losses]\nMyTriplet = minelib:MyTriplet\n[robustdml.recipes]\nmy-digits = minelib:mine\n"
    )
    _, out, _ = run("list", "losses", "--json", cwd=here, PYTHONPATH=str(here))
    assert "MyTriplet" in [entry["name"] for entry in json.loads(out)]
    words = ("train", "plain-digits-small", "--loss", "MyTriplet", "--epochs", 1, "--out", "run", "--quiet")
    assert run(*words, cwd=here, PYTHONPATH=str(here))[0] == 0
    assert json.loads((here / "run" / "recipe.json").read_text())["loss"]["type"] == "MyTriplet"
    _, out, _ = run("list", "recipes", "--json", cwd=here, PYTHONPATH=str(here))
    assert "my-digits" in [entry["name"] for entry in json.loads(out)]
    code, out, err = run("train", "my-digits", "--dry-run", "--json", cwd=here, PYTHONPATH=str(here))
    assert code == 0, err
    assert (json.loads(out)["recipe"]["name"], json.loads(out)["recipe"]["loss"]["type"]) == ("my-digits", "MyTriplet")


def test_a_command_leaves_the_other_processes_before_it_ends():
    """At exit a thread of their exchange may still run, which aborts the process now and then."""
    code = (
        "import torch.distributed as d; from robustdml.cli.main import main\n"
        "d.init_process_group('gloo', store=d.HashStore(), rank=0, world_size=1)\n"
        "assert main(['list', 'losses']) == 0\n"
        "assert not d.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
