"""Dataclasses to JSON and back, and words of the command line as values."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from robustdml.serial import from_json, nearest, number, parse, to_json, with_field


@dataclass(frozen=True)
class Inner:
    eps: float = 0.5
    steps: int = 3


@dataclass(frozen=True)
class Other:
    eps: float = 0.1


@dataclass(frozen=True)
class Strict:
    size: int

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size}.")


@dataclass(frozen=True)
class Outer:
    inner: Inner | Other = field(default_factory=Inner)
    kind: Literal["a", "b"] = "a"
    clip: float | None = None
    flag: bool = False
    name: str = ""
    items: tuple[Inner, ...] = ()
    groups: dict[str, Inner] = field(default_factory=dict)


TABLE = {c.__name__: c for c in (Inner, Other, Outer, Strict)}


def test_there_and_back():
    value = Outer(Other(0.2), "b", 1.5, True, "x", (Inner(), Inner(1.0)), {"head": Inner(0.1, 1)})
    assert from_json(to_json(value), TABLE) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"type": "Outr"}, "Did you mean Outer"),
        (
            {"type": "Outer", "inner": {"type": "Inner", "esp": 1}},
            "recipe.inner: Inner has no field 'esp'. Did you mean eps",
        ),
        ({"type": "Outer", "kind": "c"}, "recipe.kind: expected 'a' or 'b', got 'c'"),
        ({"type": "Outer", "flag": 1}, "recipe.flag: expected bool, got 1"),
        ({"type": "Inner", "steps": 1.5}, "recipe.steps: expected int, got 1.5"),
        ({"type": "Inner", "steps": True}, "recipe.steps: expected int, got True"),
        ({"type": "Inner", "eps": "8/255"}, "recipe.eps: expected float"),
        ({"type": "Strict"}, "size"),
        ({"type": "Strict", "size": 0}, "size must be >= 1"),
        ({"type": "Outer", "items": [{"type": "Inner"}, {"type": "X"}]}, r"recipe.items\[1\]: unknown type 'X'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value, said):
    with pytest.raises(ValueError, match=said):
        from_json(value, TABLE)


def test_only_plain_values_are_written():
    with pytest.raises(TypeError, match="cannot write set"):
        to_json({"a": {1}})


def test_numbers_may_be_fractions():
    assert number("8/255") == 8 / 255
    assert number("0.03") == 0.03
    for text in ("8/0", "a/2", "", "1/2/3"):
        with pytest.raises(ValueError, match="fraction such as 8/255"):
            number(text)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("1/4", float, 0.25),
        ("true", bool, True),
        ("False", bool, False),
        ("none", float | None, None),
        ("2", float | None, 2.0),
        ("b", Literal["a", "b"], "b"),
        ("x", str, "x"),
    ],
)
def test_words_become_values(text, hint, value):
    found = parse(text, hint, "--x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("text", "hint"), [("1.5", int), ("x", float), ("1", bool), ("c", Literal["a", "b"])])
def test_words_that_do_not_fit(text, hint):
    with pytest.raises(ValueError, match="--x: expected"):
        parse(text, hint, "--x")


def test_a_field_is_set_by_its_path():
    assert with_field(Outer(), "inner.eps", "8/255", TABLE).inner == Inner(8 / 255)
    assert with_field(Outer(Inner(0.3)), "inner", "Other", TABLE).inner == Other(0.3)
    assert with_field(Outer(), "kind", "b", TABLE).kind == "b"


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("inner.esp", "1", "Inner has no field 'esp'. Did you mean eps"),
        ("iner", "1", "Did you mean inner"),
        ("kind.x", "1", "has no fields"),
        ("inner", "Outre", "unknown type 'Outre'. Did you mean Outer"),
        ("inner", "Strict", "write it into a recipe.json"),
        ("inner", "Outer", "expected"),
    ],
)
def test_paths_that_lead_nowhere(path, text, said):
    with pytest.raises(ValueError, match=said):
        with_field(Outer(), path, text, TABLE)


def test_a_value_the_class_refuses_is_told_with_its_option():
    with pytest.raises(ValueError, match="--size 0: size must be >= 1"):
        with_field(Strict(2), "size", "0", TABLE)


def test_nearest_names():
    assert nearest("Triplt", ["Triplet", "Margin"]) == "Did you mean Triplet? Known: Margin, Triplet."
    assert nearest("zzz", ["a"]) == "Known: a."


def test_a_fraction_may_have_decimals():
    assert number("0.5/255") == 0.5 / 255
    with pytest.raises(ValueError, match="fraction"):
        number("1/0")


@dataclass(frozen=True)
class Open:
    part: Inner | Other | None = None
    numbers: tuple[int, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    inners: dict[str, Inner] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("part", "Other", Open(Other())),
        ("part", Inner(0.2), Open(Inner(0.2))),
        ("numbers", "100,150", Open(numbers=(100, 150))),
        ("numbers", "7", Open(numbers=(7,))),
        ("settings.a", "3", Open(settings={"a": 3})),
        ("settings.a", "8/255", Open(settings={"a": 8 / 255})),
        ("settings.a", "true", Open(settings={"a": True})),
        ("settings.a", "none", Open(settings={"a": None})),
        ("settings.a", "word", Open(settings={"a": "word"})),
        ("settings.a", "Inner", Open(settings={"a": Inner()})),
    ],
)
def test_open_fields_take_words_and_components(path, value, expected):
    assert with_field(Open(), path, value, TABLE) == expected


def test_an_entry_is_kept_apart_from_the_others_and_a_component_can_be_taken_away():
    both = with_field(Open(settings={"a": 1, "b": Inner()}), "settings.b.steps", "9", TABLE)
    assert both == Open(settings={"a": 1, "b": Inner(steps=9)})
    assert with_field(Open(Inner()), "part", "none", TABLE) == Open()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("settings.a.steps", "1", "there is no 'a' yet. Give it a whole value first, e.g. --settings.a Adam"),
        ("numbers", "1,x", "expected tuple.*got '1,x'"),
        ("part", Strict(1), "--part: expected"),
        ("inners.a", "0.5", r"--inners\.a: expected dict.*Inner.*got .*0\.5"),
    ],
)
def test_what_an_open_field_does_not_take_is_named(path, value, said):
    with pytest.raises(ValueError, match=said):
        with_field(Open(), path, value, TABLE)
