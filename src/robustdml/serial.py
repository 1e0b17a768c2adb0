"""Frozen dataclasses to JSON and back: {"type": "Triplet", "distance": {"type": "Spherical"}, …}.

Only classes that a table of the library or an installed plug-in names can be made from a file, so that reading a
recipe or a profile never runs code the file chose.
"""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, TypeVar, Union

Json = Any
T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message: what was probably meant, and everything that is accepted."""
    same = [k for k in known if k.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Known: {', '.join(sorted(known))}."


def to_json(value: object) -> Json:
    """Nested dictionaries, lists and plain values, with the type of every component."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"cannot write {type(value).__name__} to JSON; recipes hold dataclasses and plain values only")


def from_json(value: Json, table: dict[str, type], where: str = "recipe") -> Any:
    """The object described by `to_json`; `table` maps the type names that may occur.

    Raises:
        ValueError: naming the place, what was found there and what is accepted.
    """
    if isinstance(value, list):
        return tuple(from_json(v, table, f"{where}[{i}]") for i, v in enumerate(value))
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {k: from_json(v, table, f"{where}.{k}") for k, v in value.items()}
    cls = table.get(value["type"])
    if cls is None:
        raise ValueError(f"{where}: unknown type {value['type']!r}. {nearest(str(value['type']), list(table))}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    given = {k: from_json(v, table, f"{where}.{k}") for k, v in value.items() if k != "type"}
    for key in given:
        if key not in fields:
            raise ValueError(f"{where}: {cls.__name__} has no field {key!r}. {nearest(key, list(fields))}")
    hints = typing.get_type_hints(cls)
    for key, v in given.items():
        check_type(v, hints[key], f"{where}.{key}")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def read_as(cls: type[T], value: Json, table: dict[str, type], where: str) -> T:
    """`from_json` where one type is wanted.

    Raises:
        ValueError: naming the field that is unknown or malformed, or the type found instead.
    """
    found = from_json(value, table, where)
    if not isinstance(found, cls):
        kind = 'an object without "type"' if isinstance(found, dict) else type(found).__name__
        raise ValueError(f'{where}: expected {{"type": "{cls.__name__}", …}}, got {kind}.')
    return found


def check_type(value: object, hint: Any, where: str) -> None:
    """Raise if `value` does not fit a field annotated with `hint`.

    Raises:
        ValueError: with what was found and what the field accepts.
    """
    if not _fits(value, hint):
        wanted = str(hint) if typing.get_origin(hint) else getattr(hint, "__name__", str(hint))
        if typing.get_origin(hint) is Literal:
            wanted = " or ".join(repr(v) for v in typing.get_args(hint))
        raise ValueError(f"{where}: expected {wanted}, got {value!r}.")


def _fits(value: object, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint in (float, int, bool, str):
        is_bool = isinstance(value, bool)
        if hint is float:
            return isinstance(value, (int, float)) and not is_bool
        return isinstance(value, hint) and (hint is bool or not is_bool)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, typing.get_args(hint)[1]) for v in value.values())
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if origin is not None:
        return isinstance(value, origin)
    return isinstance(value, hint) if isinstance(hint, type) else True


def parse(text: str, hint: Any, where: str) -> object:
    """A command-line word as a value for a field annotated with `hint`; numbers may be fractions such as 8/255.

    Raises:
        ValueError: with the word and what the field accepts.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    if text.lower() == "none" and any(typing.get_origin(option) is tuple for option in options):
        return ()
    for option in options:
        found = _parse_one(text, option)
        if found is not None:
            return found
    if any(typing.get_origin(o) is Literal for o in options):
        check_type(text, hint, where)
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in options)
    raise ValueError(f"{where}: expected {wanted}, got {text!r}.")


def _parse_one(text: str, hint: Any) -> object:
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if hint is int:
            return int(text)
        if hint is float:
            return number(text)
    except ValueError:
        return None
    if hint is str:
        return text
    if typing.get_origin(hint) is Literal:
        return next((v for v in typing.get_args(hint) if str(v) == text), None)
    if typing.get_origin(hint) is tuple:  # of any length: 100,150
        inner = [_parse_one(word, typing.get_args(hint)[0]) for word in text.split(",") if word]
        return None if None in inner else tuple(inner)
    return None


def number(text: str) -> float:
    """A number, or a fraction such as 8/255.

    Raises:
        ValueError: if it is neither.
    """
    try:
        above, slash, below = text.partition("/")
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected a number or a fraction such as 8/255, got {text!r}.") from None


def with_field(root: Any, path: str, value: object, table: dict[str, type]) -> Any:
    """`root` with the field at a dotted `path` set to a component, or from a command-line word.

    A field that holds a component takes a type name (its other fields are kept where both types have them; a type with
    a field `inner` is put around what was there). The entries
    of a dictionary are numbers, true, false, none, words or components; one that does not exist yet begins with a whole
    value.

    Raises:
        ValueError: naming the part of the path that does not exist, and what does.
    """
    return _with_field(root, path.split("."), value, table, path)


def _with_field(root: Any, parts: list[str], value: object, table: dict[str, type], path: str) -> Any:
    if isinstance(root, dict):
        return _with_entry(root, parts, value, table, path)
    if not dataclasses.is_dataclass(root) or isinstance(root, type):
        whole = path.removesuffix("." + ".".join(parts))
        raise ValueError(
            f"--{path}: --{whole} is {'none' if root is None else repr(root)} and has no fields. Give it a value that "
            f"has, before this one: --{whole} TYPE"
        )
    hints = typing.get_type_hints(type(root))
    names = [f.name for f in dataclasses.fields(root) if f.init]
    head = parts[0]
    if head not in names:
        raise ValueError(f"--{path}: {type(root).__name__} has no field {head!r}. {nearest(head, names)}")
    old = getattr(root, head)
    fitting = _components(hints[head], table) if old is None else []
    if len(parts) > 1:
        new = _with_field(old, parts[1:], value, table, path)
    elif not isinstance(value, str):
        new = value
    elif value.lower() == "none" and type(None) in typing.get_args(hints[head]):
        new = None
    elif dataclasses.is_dataclass(old) or fitting or (old is None and value in table):
        new = _component(old, value, table, path, fitting)
    else:
        new = parse(value, hints[head], f"--{path}")
    check_type(new, hints[head], f"--{path}")
    try:
        return dataclasses.replace(root, **{head: new})
    except ValueError as error:
        raise ValueError(f"--{path} {value}: {error}") from error


def _components(hint: Any, table: dict[str, type]) -> list[str]:
    """Names of the types from the packages of those that a hint names; empty where it names numbers or words."""
    nouns = {_noun(cls) for cls in typing.get_args(hint) or (hint,) if isinstance(cls, type)} - {""}
    return [name for name, cls in table.items() if _noun(cls) in nouns]


def _component(old: Any, text: str, table: dict[str, type], path: str, fitting: list[str] | None = None) -> Any:
    cls = table.get(text)
    if cls is None:
        alike = [name for name, c in table.items() if old is None or _noun(c) in (_noun(type(old)), "")]
        raise ValueError(f"--{path}: unknown type {text!r}. {nearest(text, fitting or alike)}")
    kept = {f.name for f in dataclasses.fields(old)} if dataclasses.is_dataclass(old) else set()
    own = {f.name for f in dataclasses.fields(cls) if f.init}
    given = {name: getattr(old, name) for name in own & kept}
    if "inner" in own - kept and old is not None:
        given["inner"] = old
    try:
        try:
            return cls(**given)
        except ValueError:  # the new type trains what the old type's distance does not rank by
            if "distance" not in given:
                raise
            return cls(**{name: v for name, v in given.items() if name != "distance"})
    except TypeError as error:
        lacking = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in given and _required(f)]
        raise ValueError(
            f"--{path} {text}: it needs {' and '.join(lacking) or error}, which {type(old).__name__} has not. Begin "
            "with a recipe that has one and change that, or write it into a recipe.json."
        ) from error


def _required(f: "dataclasses.Field[Any]") -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _noun(cls: type) -> str:
    """The package of the library a class is from: what may stand in its place; empty for classes of others."""
    first, *rest = cls.__module__.split(".")
    return rest[0] if first == __package__ and rest else ""


def _with_entry(
    root: dict[str, Any], parts: list[str], value: object, table: dict[str, type], path: str
) -> dict[str, Any]:
    head = parts[0]
    if len(parts) > 1:
        if head not in root:
            whole = path.removesuffix("." + ".".join(parts[1:]))
            raise ValueError(f"--{path}: there is no {head!r} yet. Give it a whole value first, e.g. --{whole} Adam.")
        return root | {head: _with_field(root[head], parts[1:], value, table, path)}
    if not isinstance(value, str):
        return root | {head: value}
    return root | {head: _component(root.get(head), value, table, path) if value in table else _value(value)}


def _value(text: str) -> object:
    """A word as what it looks like: none, true, false, a whole number, a number, else itself."""
    if text.lower() == "none":
        return None
    for hint in (bool, int, float):
        found = _parse_one(text, hint)
        if found is not None:
            return found
    return text
