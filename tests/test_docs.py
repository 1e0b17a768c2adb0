"""Documentation: what it shows runs, what it names exists, and what exists is named."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from robustdml.attacks import GOALS
from robustdml.cli import options
from robustdml.cli.main import VERBS, main
from robustdml.names import ATTACKS
from robustdml.profile import PROFILES
from robustdml.recipe import NOUNS, recipe_to_json
from robustdml.recipes import recipes
from robustdml.recipes.papers import BIBTEX
from robustdml.report.glossary import CLEAN

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOREIGN = re.compile(
    r"(?<![\w.:/])/(?:home|root|work|tmp|mnt|opt|usr|var)/|pypi\.org|pythonhosted|download\.pytorch\.org|index-url"
    r"|anaconda\.org",
)
PAGE_OF = {
    "datasets": "data", "models": "models", "distances": "distances", "miners": "miners", "losses": "losses",
    "balls": "adversaries", "searches": "adversaries", "defenses": "defenses",
    "destinations": "defenses", "penalties": "defenses", "transforms": "data",
}  # fmt: skip
PLACEHOLDERS = {"NAME", "NOUN", "PATH", "PROFILE", "RECIPE", "RUN", "TARGET", "VERB", "ARCHIVE"}
DRY = ("attack", "benchmark", "train")
RUNNER = """
import json, os, shlex, sys
from pathlib import Path
from robustdml.cli.main import main
for page, blocks in json.loads(Path("blocks.json").read_text()).items():
    here = Path(page).resolve()
    os.chdir(here)
    sys.path.insert(0, str(here))
    space = {"__name__": f"docs_{here.name}"}
    for kind, text in blocks:
        if kind == "python":
            source = here / "block.py"
            source.write_text(text)
            exec(compile(text, f"{page}: {text[:60]!r}", "exec"), space)
        for line in text.splitlines() if kind == "sh" else []:
            code = main(shlex.split(line, comments=True)[1:])
            assert code == 0, f"{page}: {line} ended with {code}"
    os.chdir(here.parent)
    print(page, "done")
"""


@cache
def blocks(page):
    """(language, other words of the fence, text) of every fenced block."""
    return [(*m["info"].strip().partition(" ")[::2], m["text"]) for m in BLOCK.finditer(text_of(page))]


@cache
def text_of(page):
    return page.read_text(encoding="utf-8")


def commands(page):
    """Every line of a shell block, or of inline code, that calls the command."""
    lines = [line for language, _, text in blocks(page) if language == "sh" for line in text.splitlines()]
    lines += re.findall(r"`(robustdml [a-z]+ [^`\n]+)`", BLOCK.sub("", text_of(page)))
    return [line.strip() for line in lines if re.match(r"\s*robustdml\s", line)]


def prose(page):
    return text_of(ROOT / "docs" / f"{page}.md")


def installed(folder, page):
    """What `pip install` would leave of the page's pyproject.toml, without its time."""
    for language, title, text in blocks(page):
        if language == "toml":
            project = tomllib.loads(text)["project"]
            info = folder / f"{project['name']}-{project['version']}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            )
            groups = project["entry-points"].items()
            (info / "entry_points.txt").write_text(
                "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups)
            )
        elif title.startswith("title="):
            (folder / title.removeprefix("title=")).write_text(text)


def test_every_block_that_is_marked_runs(tmp_path):
    """One process for all pages: each in a folder of its own, its plug-ins installed."""
    todo, paths = {}, []
    for page in PAGES:
        marked = [(language, text) for language, words, text in blocks(page) if words == "run"]
        if marked:
            folder = tmp_path / page.stem
            folder.mkdir()
            installed(folder, page)
            paths.append(str(folder))
            todo[page.stem] = marked
    assert {"README", "attacks", "how-to-add-a-loss"} <= todo.keys()
    (tmp_path / "blocks.json").write_text(json.dumps(todo))
    (tmp_path / "runner.py").write_text(RUNNER)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*paths, str(Path(importlib.import_module("robustdml").__file__).parents[1])]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "runner.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the paths that the documentation mentions exist: runs without weights, and one profile."""
    folder = tmp_path_factory.mktemp("docs")
    for name, make in recipes().items():
        last = folder / "runs" / name / "checkpoints" / "last"
        last.mkdir(parents=True)
        (last / "model.safetensors").touch()
        for place in (last, folder / "runs" / name):
            (place / "recipe.json").write_text(json.dumps(recipe_to_json(make())))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_parses_and_those_that_can_are_planned(page, workplace, monkeypatch, capsys):
    run = {line for language, words, text in blocks(page) if words == "run" for line in text.splitlines()}
    monkeypatch.chdir(workplace)
    for line in commands(page):
        verb, *words = shlex.split(line, comments=True)[1:]
        assert verb in VERBS or verb == "--version", line
        if line in run or not words:
            continue
        module = importlib.import_module(f"robustdml.cli.{verb}")
        if "…" in line or PLACEHOLDERS & set(words):
            continue  # a pattern, not a command
        options.read(module.Options, words, verb, (), rest=verb == "train")  # exits where it cannot
        known = not any(
            word in line for word in ("timm:", "mymodels", "mine", "photos", "SoftTriplet", "Stripes", "Noise")
        )
        if verb in DRY and known and "--resume" not in words:
            assert main([verb, *words, "--dry-run"]) == 0, f"{line}: {capsys.readouterr().err}"
    capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_internal_link_resolves(page):
    for target in LINK.findall(BLOCK.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", text_of(file), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name}: {target}"


def test_every_page_is_linked_from_the_index():
    linked = set(LINK.findall(prose("index")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_path_of_a_machine_and_no_package_index_is_named(page):
    assert not (found := FOREIGN.search(text_of(page))), f"{page.name}: {found[0]}"


@pytest.mark.parametrize("noun", PAGE_OF)
def test_every_entry_of_a_table_is_on_the_page_of_its_noun(noun):
    missing = [name for name in NOUNS[noun] if f"`{name}" not in prose(PAGE_OF[noun])]
    assert not missing


def test_every_named_thing_is_on_its_page():
    wanted = {
        "attacks": [*ATTACKS, *GOALS],
        "profiles": PROFILES,
        "recipes": [*recipes(), *BIBTEX.values()],
        "ranking-and-metrics": CLEAN,
        "command-line": VERBS,
    }
    missing = {page: [name for name in names if name not in prose(page)] for page, names in wanted.items()}
    assert not {page: names for page, names in missing.items() if names}


def test_every_module_is_in_the_description_of_the_architecture():
    package = Path(importlib.import_module("robustdml").__file__).parent
    nouns = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert not {noun for noun in nouns if f"`{noun}`" not in prose("architecture")}


def test_every_self_check_is_explained():
    source = (Path(importlib.import_module("robustdml.audit").__file__)).read_text(encoding="utf-8")
    names = set(re.findall(r'Check\("(\w+)"', source))
    assert len(names) >= 10
    assert not {name for name in names if f"`{name}`" not in prose("self-checks")}


def test_attacks_has_a_runnable_command_for_each():
    shown = {
        word
        for language, words, text in blocks(ROOT / "docs" / "attacks.md")
        if words == "run"
        for word in text.split()
    }
    named = {name for name in ATTACKS if not name.endswith("-published")}
    classifiers = {name for name in named if name.startswith("misclassify")}  # shown in Python: no image gallery fits
    assert named - classifiers <= shown
    assert {"nes", "--surrogate", "--random-start"} <= shown


def test_the_readme_and_the_check_script_share_the_test_command():
    [command] = [line for line in text_of(ROOT / "README.md").splitlines() if line.endswith(".venv/bin/pytest")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_citation_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in text_of(ROOT / "CHANGELOG.md")
