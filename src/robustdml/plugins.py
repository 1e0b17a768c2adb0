"""One table per noun: what the command line and recipe files can name, our own classes and installed plug-ins.

A package adds a class with an entry point in the group of the noun, e.g. `[project.entry-points."robustdml.losses"]`.
"""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from robustdml.serial import nearest


@cache
def installed(noun: str) -> Mapping[str, type]:
    """Classes that other packages offer in the entry-point group `robustdml.<noun>`, or functions that make recipes.

    Raises:
        ImportError: naming the plug-in and its package, if one does not load.
    """
    return {point.name: _loaded(point) for point in entry_points(group=f"robustdml.{noun}")}


def collected(package: str, protocol: type) -> dict[str, type]:
    """The library's own classes of a noun: every public dataclass in the files of a package that fits its protocol.

    So a new one is a new file and nothing else.
    """
    members = vars(protocol).keys() | inspect.get_annotations(protocol).keys()
    wanted = {name for name in members if name[0] != "_" or name == "__call__"}
    found: dict[str, type] = {}
    for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{file.name}")
        for name, cls in vars(module).items():
            if name[0] == "_" or not dataclasses.is_dataclass(cls) or cls.__module__ != module.__name__:
                continue
            has = {f.name for f in dataclasses.fields(cls)}.union(*(vars(c) for c in cls.__mro__))  # type: ignore[union-attr]
            if wanted <= has:
                found[name] = cls  # type: ignore[assignment]
    return found


def from_module(text: str) -> Callable[..., Any]:
    """The callable of a `module:callable`; the current folder is searched for the module too.

    Raises:
        ValueError: if there is no such module, or no such callable in it.
    """
    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = vars(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{text}: {error}. Give an importable module and a callable, e.g. mymodels:resnet for mymodels.py in the "
            "current folder."
        ) from error
    if not callable(found.get(name)):
        known = [n for n, v in found.items() if callable(v) and n[0] != "_"]
        raise ValueError(f"{text}: {module} has no callable {name!r}. {nearest(name, known)}")
    return found[name]


def _loaded(point: EntryPoint) -> type:
    package = point.dist.name if point.dist else "an installed package"
    try:
        found = point.load()
    except Exception as error:
        raise ImportError(
            f"the plug-in {point.name!r} ({point.value}) of {package} does not load: {type(error).__name__}: {error}. "
            f"Repair it, or remove it with: pip uninstall {package}"
        ) from error
    if isinstance(found, type) and found.__name__ != point.name:
        raise ImportError(
            f"the plug-in {point.name!r} of {package} is the class {found.__name__}; recipes find classes by their "
            f"name, so call the entry point {found.__name__!r}."
        )
    return found
