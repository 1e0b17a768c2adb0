"""Everything that has a name: what `robustdml list` shows."""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field

from robustdml.data.table import plugged
from robustdml.names import ATTACKS, unnamed_goals
from robustdml.plugins import installed
from robustdml.profile import PROFILES
from robustdml.recipe import NOUNS
from robustdml.recipes import recipes
from robustdml.recipes.papers import TITLES
from robustdml.report.glossary import CLEAN
from robustdml.serial import Json, nearest, to_json


@dataclass(frozen=True)
class Entry:
    """A named thing: one line about it, and its parameters with type and default."""

    name: str
    line: str
    parameters: list[dict[str, str]] = field(default_factory=list)
    paper: str = ""

    def as_json(self) -> Json:
        """All of it."""
        return dataclasses.asdict(self)


def entries(noun: str) -> list[Entry]:
    """What there is of a noun, installed plug-ins included.

    Raises:
        ValueError: if there is no such noun.
    """
    if noun in NOUNS:
        others = plugged() if noun == "datasets" else installed(noun)
        return [_of_class(name, cls) for name, cls in {**NOUNS[noun], **others}.items()]
    if noun not in _OTHERS:
        raise ValueError(f"unknown noun {noun!r}. {nearest(noun, nouns())}")
    return _OTHERS[noun]()


def nouns() -> list[str]:
    """Everything `entries` knows."""
    return sorted([*NOUNS, *_OTHERS])


def _of_class(name: str, cls: type) -> Entry:
    return Entry(name, first_line(cls), parameters(cls))


def first_line(thing: object) -> str:
    """The first sentence of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")


def parameters(cls: type) -> list[dict[str, str]]:
    """Name, type and default of the fields of a dataclass; none for other classes."""
    if not dataclasses.is_dataclass(cls):
        return []
    hints = typing.get_type_hints(cls)
    return [
        {"name": f.name, "type": _type(hints[f.name]), "default": _default(f)}
        for f in dataclasses.fields(cls)
        if f.init
    ]


def _type(hint: object) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(repr(option) for option in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _default(f: "dataclasses.Field[object]") -> str:
    if f.default is not dataclasses.MISSING:
        return str(f.default)
    if f.default_factory is not dataclasses.MISSING:
        made = f.default_factory()
        return type(made).__name__ if dataclasses.is_dataclass(made) else str(made)
    return "required"


def _recipes() -> list[Entry]:
    found = []
    for name, make in recipes().items():
        made = make()
        shown = {
            f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.name not in ("name", "note", "paper")
        }
        values = [{"name": n, "type": type(v).__name__, "default": _short(v)} for n, v in shown.items()]
        found.append(Entry(name, first_line(make), values, made.paper))
    return found


def _short(value: object) -> str:
    if dataclasses.is_dataclass(value):
        inner = {k: v for k, v in to_json(value).items() if k != "type" and not isinstance(v, (dict, list))}
        return f"{type(value).__name__}({', '.join(f'{k}={v}' for k, v in inner.items())})"
    return str(value)


def _attacks() -> list[Entry]:
    own = []
    for name, stands_for in ATTACKS.items():
        goal = stands_for.goal()
        own.append(Entry(name, first_line(type(goal)), parameters(type(goal))))
    return own + [_of_class(name, cls) for name, cls in unnamed_goals().items()]


def _profiles() -> list[Entry]:
    return [
        Entry(
            p.name,
            f"{len(p.measurements)} attacks. {p.note}",
            [
                {"name": m.name, "type": type(m.goal).__name__, "default": _short(m.adversary.ball)}
                for m in p.measurements
            ],
        )
        for p in PROFILES.values()
    ]


_OTHERS: dict[str, Callable[[], list[Entry]]] = {
    "recipes": _recipes,
    "attacks": _attacks,
    "profiles": _profiles,
    "metrics": lambda: [Entry(name, line) for name, line in CLEAN.items()],
    "papers": lambda: [Entry(key, line, paper=key) for key, line in TITLES.items()],
}
