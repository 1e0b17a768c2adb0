"""Published robustness figures of the RobRank and RobDML papers, for reference beside own runs.

They were measured by their authors with their own seeds: a difference of a few points to an own run is within the
spread the authors report themselves.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from robustdml.report.run import normalised

NAMES = {
    "mnist": ("mnist",),
    "fashion": ("fashion", "fashionmnist"),
    "cub": ("cub", "cub200", "cub2002011"),
    "cars": ("cars", "cars196", "stanfordcars"),
    "sop": ("sop", "onlineproducts", "stanfordonlineproducts"),
}


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        steps: Steps of the training adversary, None for plain training or where the source does not say.
        clean: Fractions in [0, 1].
        raw: Scores under attack as printed: percent, except TMA (cosine) and ES:D (distance). Empty where not printed.
        ers: As printed, or recomputed from `raw` when `ers_recomputed`; None with the reason in `ers_undefined`.
    """

    dataset: str
    model: str
    loss: str
    distance: str
    defense: str
    steps: int | None
    clean: dict[str, float]
    raw: dict[str, float]
    ers: float | None
    source: str
    ers_undefined: str = ""
    ers_recomputed: bool = False

    @property
    def components(self) -> dict[str, float]:
        """The ERS components 0…100; without ES:D where the distance leaves it undefined."""
        raw = {name: value for name, value in self.raw.items() if not (self.ers_undefined and name == "ES:D")}
        return normalised(raw)


@cache
def _rows() -> tuple[Published, ...]:
    text = resources.files("robustdml.report").joinpath("published.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["rows"]
    return tuple(Published(**row) for row in rows)


def canonical(dataset: str) -> str | None:
    """Short name of a data set that has published rows (`Fashion-MNIST` -> `fashion`), None for any other."""
    plain = "".join(letter for letter in dataset.lower() if letter.isalnum())
    return next((short for short, names in NAMES.items() if plain in names), None)


def published(*datasets: str) -> list[Published]:
    """Published rows of the named data sets under any usual spelling; all rows without a name."""
    wanted = {canonical(dataset) for dataset in datasets}
    return [row for row in _rows() if not datasets or row.dataset in wanted]
