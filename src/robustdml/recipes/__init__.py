"""Recipes by name: functions that return one, collected from the files of this folder and from plug-ins."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

from robustdml.data.table import dataset
from robustdml.plugins import installed
from robustdml.recipe import Recipe, component_types, overridden
from robustdml.recipes import cheaper, classification, digits, robdml, robrank, robrank224, robust, successors
from robustdml.recipes.grammar import from_string
from robustdml.runs import read_recipe
from robustdml.serial import nearest

_RECIPE = inspect.Signature(return_annotation=Recipe)


@cache
def recipes() -> Mapping[str, Callable[[], Recipe]]:
    """Every recipe that has a name: `act_fashion_c2f2` is called act-fashion-c2f2."""
    own = {
        name.replace("_", "-"): function
        for module in (digits, robrank, robdml, successors, cheaper, classification, robrank224, robust)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
        and inspect.signature(function) == _RECIPE
    }  # fmt: skip
    return {**own, **cast(Mapping[str, Callable[[], Recipe]], installed("recipes"))}


def recipe(text: str) -> Recipe:
    """The recipe of a name, of a RobRank string such as `fashion:rc2f2p:ptripletN`, or of a recipe.json.

    Raises:
        DataError: if it is a file that is missing or damaged.
        ValueError: if it is none of them, with the nearest known names.
    """
    if text in recipes():
        made = recipes()[text]()
        return made if made.name == text else replace(made, name=text)  # a plug-in's: its results lie under its name
    path = Path(text)
    if path.suffix == ".json" or path.is_dir():
        return read_recipe(path / "recipe.json" if path.is_dir() else path)
    if ":" in text:
        return from_string(text)
    raise ValueError(
        f"unknown recipe {text!r}. {nearest(text, list(recipes()))} Also accepted: a RobRank string such as "
        "fashion:rc2f2p:ptripletN, or the path of a recipe.json."
    )


def adjusted(base: Recipe, settings: list[tuple[str, str]]) -> Recipe:
    """A recipe with some fields set from words, e.g. ("defense.adversary.ball.eps", "8/255"); `data` takes a name too.

    Raises:
        ValueError: naming the field that does not exist, or the value that it does not take.
    """

    def named(path: str, text: str) -> bool:
        return path == "data" and text not in component_types()

    return overridden(base, [(path, dataset(text) if named(path, text) else text) for path, text in settings])


def check_resumed(run: Path, base: Recipe, settings: list[tuple[str, str]]) -> None:
    """A run goes on with the recipe it was begun with: raise if something else was asked for.

    Raises:
        DataError: if the saved recipe is missing or damaged.
        ValueError: naming what differs.
    """
    saved = read_recipe(run / "recipe.json")
    if saved.name != base.name:
        raise ValueError(
            f"{run} holds a run of {saved.name}, not of {base.name}. Continue it with: robustdml train {saved.name} "
            f"--out {run} --resume"
        )
    for path, text in settings:
        if adjusted(saved, [(path, text)]) != saved:
            raise ValueError(
                f"--{path} {text} differs from the recipe that {run} was begun with ({run / 'recipe.json'}). Leave it "
                "out to continue, or begin another run with another --out and without --resume."
            )
