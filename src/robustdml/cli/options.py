"""Options that several verbs share, and how they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from robustdml.cli import terminal
from robustdml.serial import number

Options = TypeVar("Options")


def _word(metavar: str, read: Callable[[str], Any]) -> Any:
    """An option of one word that may be left out."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


Fraction = Annotated[float | None, _word("NUMBER", number)]
"""A number or a fraction such as 8/255."""
Whole = Annotated[int | None, _word("N", int)]
Word = Annotated[str | None, _word("NAME", str)]
File = Annotated[Path | None, _word("PATH", Path)]
Target = tyro.conf.Positional[Annotated[str, _word("TARGET", str)]]


@dataclass(kw_only=True)
class Common:
    """Options of every verb."""

    json: bool = False
    """one JSON document on stdout instead of a table"""
    quiet: bool = False
    """no progress, notes or warnings"""
    debug: bool = False
    """tracebacks of failures"""


@dataclass(kw_only=True)
class Hardware:
    """Options of verbs that run a network."""

    device: Word = None
    """cpu, cuda or cuda:0; by default a GPU if there is one"""
    data_root: File = None
    """folder in which data sets are looked for first"""


def read(
    kind: type[Options], argv: list[str], verb: str, examples: tuple[str, ...], *, rest: bool = False
) -> tuple[Options, list[str]]:
    """The options in `argv`, and with `rest` the words that are none of them; exits after help or what is wrong."""
    how: Any = {
        "args": argv,
        "prog": f"robustdml {verb}",
        "config": (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        "console_outputs": terminal.is_speaker(),
    }
    try:
        return tyro.cli(kind, return_unknown_args=True, **how) if rest else (tyro.cli(kind, **how), [])
    except SystemExit as stop:
        if not stop.code and {"-h", "--help"} & set(argv):
            terminal.lines(["", "examples:", *(f"  robustdml {verb} {example}".rstrip() for example in examples)])
        raise


@dataclass(kw_only=True)
class Running(Hardware, Common):
    """Options of a verb that runs a network."""


@dataclass(kw_only=True)
class Measured(Running):
    """Options of verbs that measure a model."""

    target: Target
    """run folder, FILE.safetensors or FILE.ckpt with --recipe, or with --data: pixels, timm:NAME, module:callable"""
    data: Word = None
    """data set name or folder:PATH; by default the one the model was trained on"""
    distance: Word = None
    """how a bare model is ranked, Spherical by default; trained ones know"""
    recipe: Word = None
    """what a .safetensors or .ckpt file is: recipe name, RobRank string or recipe.json"""
    out: File = None
    """folder of the result files; by default the run folder, else runs/NAME"""
    seed: int = 0
    """draws queries and targets"""
    cache: bool = False
    """decode every image once and keep them on disk"""


def fields(words: list[str]) -> list[tuple[str, str]]:
    """Recipe fields among the words of a command: `--epochs 3` or `--epochs=3` is ("epochs", "3").

    Raises:
        ValueError: for a word that is neither an option nor the value of one.
    """
    found, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"cannot read {word!r}: fields of the recipe are set with --field.path VALUE.")
        path, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"{word} needs a value.")
            value = rest.pop(0)
        found.append((path, value))
    return found
