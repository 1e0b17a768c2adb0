"""Real processes of the command line, small runs and small profiles."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.cli.main import main
from robustdml.profile import PROFILES, profile_to_json

COMMAND = (sys.executable, "-W", "error", "-m", "robustdml.cli.main")
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "PYTHONWARNINGS")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def start(*words, cwd, **more):
    """A command in a process of its own, warnings being errors."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=cwd,
        env=ENVIRONMENT | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=100):
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(*words, cwd, **more):
    return finish(start(*words, cwd=cwd, **more))


def wait_for(there, process, seconds=60):
    """Until `there()`; fails if the process ends before."""
    limit = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.005)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """A command in this process: (exit code, stdout, stderr)."""

    def call(*words):
        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder, trained for one epoch on the digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert (
        main(["train", "plain-digits-small", "--epochs", "1", "--out", str(folder), "--device", "cpu", "--quiet"]) == 0
    )
    return folder


@pytest.fixture(scope="session")
def quick_profile(tmp_path_factory):
    """A JSON file with the ten attacks of rob28, three steps each, in blocks of 16."""
    whole = PROFILES["rob28"]
    adversary = Adversary(Linf(77 / 255), Pgd(steps=3, step_size=0.1))
    attacks = tuple(replace(m, adversary=adversary) for m in whole.measurements)
    file = tmp_path_factory.mktemp("profile") / "quick.json"
    file.write_text(json.dumps(profile_to_json(replace(whole, name="quick", measurements=attacks, batch=16))))
    return file


def timeless(card):
    """A scorecard without times and provenance."""
    kept = {k: v for k, v in card.items() if k != "provenance"}
    kept["cost"] = {k: v for k, v in card["cost"].items() if "seconds" not in k}
    kept["attacks"] = {n: {k: v for k, v in a.items() if k != "seconds"} for n, a in card["attacks"].items()}
    return kept
