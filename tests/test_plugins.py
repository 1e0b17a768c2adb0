"""Tables of the library's own classes."""

from robustdml.attacks.goals import GOALS, Goal
from robustdml.defenses import DEFENSES, Defense
from robustdml.losses import LOSSES, Loss
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


class Plain(Loud.__mro__[0]):
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


def test_every_entry_satisfies_its_protocol():
    for table, protocol in ((GOALS, Goal), (LOSSES, Loss), (DEFENSES, Defense)):
        assert len(table) > 10
        for name, cls in table.items():
            assert cls.__name__ == name
            assert protocol not in cls.__mro__
