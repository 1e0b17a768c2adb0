"""The rules of the house that a syntax tree can show."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import robustdml

ROOT = Path(robustdml.__file__).parent
LAYERS = [  # a module imports from lower layers or its own package only
    ["types", "draws", "files", "serial", "interruption", "score", "command", "allocator", "monitors", "unpickle"],
    ["plugins"],
    ["distance"],
    ["pml"],
    ["ranking", "mining", "energies"],
    ["metrics", "losses", "models", "data"],
    ["adversary", "deep_metric"],
    ["attacks", "defenses"],
    ["evaluate", "recipe", "audit", "doctor"],
    ["profile", "runs"],
    ["scorecard", "start", "foreign", "trainer"],
    ["benchmark", "train", "clean", "names"],
    ["curves", "recipes", "report"],
    ["catalogue", "targets", "demo", "diagnosis"],
    ["plan"],
    ["cli"],
    ["__main__"],
]
LAYER = {noun: number for number, nouns in enumerate(LAYERS) for noun in nouns}
LONGER: dict[str, int] = {}  # modules that may pass 400 lines, with the reason
MODULES = sorted(ROOT.rglob("*.py"))
EVERY = pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def noun(path):
    """The package or top-level module a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Nouns of the library that a file imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("robustdml.")}
    return found - {"__version__"}


@EVERY
def test_a_module_has_a_place_in_the_layers(path):
    assert noun(path) in {"__init__", *LAYER}, f"put {noun(path)} into a layer of LAYERS, as low as its imports allow"


@EVERY
def test_a_module_imports_from_lower_layers_or_its_own_package(path):
    own = noun(path)
    above = {n for n in imported(path) if n != own and LAYER.get(n, 99) >= LAYER.get(own, 99)}
    assert not above, f"{own} is in layer {LAYER.get(own)}; {', '.join(sorted(above))} not below it"


@pytest.mark.parametrize("package", ["models", "data"])
def test_models_and_data_know_nothing_but_records_and_draws(package):
    for path in (ROOT / package).rglob("*.py"):
        assert imported(path) <= {package, *LAYERS[0], *LAYERS[1]}, path.name


def test_attacks_and_defenses_do_not_know_each_other():
    for one, other in (("attacks", "defenses"), ("defenses", "attacks")):
        for path in (ROOT / one).rglob("*.py"):
            assert other not in imported(path), path.name


@EVERY
def test_no_module_is_named_after_having_no_subject(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc", "tools", "base"}


@EVERY
def test_no_module_moves_tensors_to_a_device_by_name(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr != "cuda", f"line {node.lineno}: use the device of a neighbouring tensor"


CORE = [
    "draws",
    "types",
    "distance",
    "pml",
    "ranking",
    "mining",
    "energies",
    "losses",
    "adversary",
    "attacks",
    "defenses",
]
MAKERS = {"arange", "zeros", "ones", "empty", "full", "eye", "linspace", "rand", "randn", "randint", "randperm"}


@pytest.mark.parametrize("path", [p for p in MODULES if noun(p) in CORE], ids=lambda p: str(p.relative_to(ROOT)))
def test_new_tensors_are_born_on_the_device_of_their_neighbours(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{m}" for m in MAKERS}:
            assert "device" in {k.arg for k in node.keywords}, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if noun(p) in [*CORE, "metrics", "data"]], ids=lambda p: str(p.relative_to(ROOT))
)
def test_random_choices_are_made_by_draws_alone(path):
    banned = ("torch.rand", "torch.normal", "torch.multinomial", "np.random", "numpy.random", "random.")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert not name.startswith(banned) or name == "torch.random.fork_rng", (
                f"line {node.lineno}: {name} bypasses Draws"
            )


@EVERY
def test_annotations_are_evaluated(path):
    futures = [n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert not futures, "run-time shape checks need the annotations themselves"


def public(node, inside_class=False):
    """Public functions, classes and methods below a module or class, not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not child.name.startswith("_") or (inside_class and child.name == "__call__"):
                yield child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield child
            yield from public(child, inside_class=True)


@EVERY
def test_everything_public_has_a_docstring(path):
    if path.name != "__init__.py" or path.stat().st_size:
        assert ast.get_docstring(tree(path)), "the module"
    for node in public(tree(path)):
        first = (ast.get_docstring(node) or "").split("\n")[0]
        assert first, f"line {node.lineno}: {node.name}"


@EVERY
def test_a_module_fits_in_four_hundred_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    allowed = LONGER.get(str(path.relative_to(ROOT)), 400)
    assert lines <= allowed, f"{lines} lines: ask which two nouns live there"


def test_asserts_are_not_used_on_what_users_give():
    """Plain `assert` disappears under -O; style keeps it for our own mistakes, of which the core has none to guard."""
    for path in MODULES:
        if noun(path) in CORE:
            assert not [n for n in ast.walk(tree(path)) if isinstance(n, ast.Assert)], path.name


def test_importing_the_package_does_not_import_torch():
    code = "import sys, robustdml; print([m for m in ('torch', 'numpy', 'sklearn', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
