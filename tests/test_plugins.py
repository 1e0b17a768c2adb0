"""Tables of the library's own classes."""

from robustdml.attacks.goals import GOALS
from robustdml.defenses import DEFENSES
from robustdml.losses import LOSSES
from robustdml.plugins import collected

SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar
from tests_of_plugins.protocol import Speaker


@dataclass(frozen=True)
class Loud:
    """Has all of it."""

    words: str = "x"
    name: ClassVar[str] = "loud"

    def __call__(self):
        return self.words


@dataclass(frozen=True)
class Silent:
    """Cannot be called."""

    words: str = "x"
    name: ClassVar[str] = "silent"


@dataclass(frozen=True)
class _Hidden(Loud):
    """Begins with an underscore."""


class Plain(Loud):
    """Inherits everything."""
'''
PROTOCOL = """
from typing import Protocol


class Speaker(Protocol):
    words: str

    @property
    def name(self) -> str: ...

    def __call__(self) -> str: ...
"""


def test_a_new_file_is_all_that_a_new_class_needs(tmp_path, monkeypatch):
    package = tmp_path / "tests_of_plugins"
    package.mkdir()
    for name, text in (("__init__", ""), ("protocol", PROTOCOL), ("first", SOURCE)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    from tests_of_plugins.protocol import Speaker

    found = collected("tests_of_plugins", Speaker)
    assert list(found) == ["Loud", "Plain"]
    assert found["Loud"]().words == "x"


def test_the_tables_hold_the_public_classes_by_name():
    for table, some in (
        (GOALS, {"Candidate", "EmbeddingShift", "PreservingOrder"}),
        (LOSSES, {"Triplet", "Pml", "Hybrid"}),
        (DEFENSES, {"Plain", "AntiCollapse", "Penalised"}),
    ):
        assert some < table.keys()
        assert not {name for name, cls in table.items() if cls.__name__ != name or name.startswith("Built")}
