"""One table per noun: what the command line and recipe files can name, our own classes and installed plug-ins.

A package adds a class with an entry point in the group of the noun, e.g. `[project.entry-points."robustdml.losses"]`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points


@cache
def installed(noun: str) -> Mapping[str, type]:
    """Classes that other packages offer in the entry-point group `robustdml.<noun>`."""
    return {point.name: point.load() for point in entry_points(group=f"robustdml.{noun}")}
