"""What the report draws besides scores: scores against the budget, and pictures of single attacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary, InTurn, Nes, Noise, Pgd, Search, Universal
from robustdml.benchmark import Stage, measure, write_npz
from robustdml.draws import Draws
from robustdml.files import write_json
from robustdml.profile import Measurement, Profile
from robustdml.ranking import neighbours
from robustdml.score import COMPONENTS, ers
from robustdml.scorecard import component_values
from robustdml.serial import Json

BUDGETS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Shares of the profile's radius at which a curve is measured."""
SHOWN = ("CA+", "QA+", "QA-", "TMA", "ES", "LTM", "GTT")
"""Attacks worth a picture."""
NEIGHBOURS = 5


def with_budget(adversary: Adversary, share: float) -> Adversary:
    """The same adversary in a ball of `share` of the radius, with steps that shrink alike; no search at 0."""
    ball = replace(adversary.ball, eps=adversary.ball.eps * share)  # type: ignore[type-var]  # balls are dataclasses
    if share == 0:
        return Adversary(ball, Noise())
    return Adversary(ball, _smaller(adversary.search, share))


def _smaller(search: Search, share: float) -> Search:
    if isinstance(search, InTurn):
        return replace(search, searches=tuple(_smaller(one, share) for one in search.searches))
    if isinstance(search, (Pgd, Nes, Universal)):
        return replace(search, step_size=search.step_size * share)
    return search


def write_curve(
    stage: Stage,
    profile: Profile,
    out: Path,
    *,
    name: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Json:
    """Measure a profile at seven budgets and write `curve-PROFILE.json`.

    Args:
        stage: choose few queries for it: the cost is six profiles on them.

    Raises:
        ValueError: for a profile of several budgets, which has no one radius to take shares of.
    """
    check_one_budget(profile)
    eps, scores, recalls = [], [], {m.name: [] for m in profile.measurements}  # type: ignore[var-annotated]
    components: dict[str, list[float]] = {n: [] for n in COMPONENTS}
    whole = profile.measurements[0].adversary.ball.eps
    total = len(BUDGETS) * len(profile.measurements)
    for i, share in enumerate(BUDGETS):
        found: dict[str, float] = {}
        for j, m in enumerate(profile.measurements):
            progress(i * len(profile.measurements) + j, total, f"curve {m.name}")
            after = _after(stage, profile, replace(m, adversary=with_budget(m.adversary, share)))
            found |= {
                n: float(np.nanmean(v)) for n, v in component_values(m.name, after, stage.metric.distance).items()
            }
            if "recall@1" in after:
                recalls[m.name].append(float(np.nanmean(after["recall@1"])))
        eps.append(share * whole)
        for n, value in found.items():
            components[n].append(value)
        defined = profile.has_ers and stage.metric.distance.largest is not None
        scores.append(ers(found) if defined else None)
    curve = {
        "schema": 1,
        "profile": profile.name,
        "name": name,
        "eps": eps,
        "ers": scores,
        "components": {n: values for n, values in components.items() if values},
        "recall@1": {n: values for n, values in recalls.items() if values},
        "queries": len(stage.rows),
        "seed": stage.seed,
        "steps": profile.measurements[0].adversary.search.gradients,
        "step_size_rule": "the profile's step size times eps over the profile's eps",
    }
    write_json(out / f"curve-{profile.name}.json", curve)
    return curve


def check_one_budget(profile: Profile) -> None:
    """Raise for a profile of several budgets."""
    budgets = {m.adversary.ball for m in profile.measurements}
    if len(budgets) > 1:
        raise ValueError(
            f"--curve takes shares of one radius, and profile {profile.name} has {len(budgets)} balls. Its own "
            "results are the curve; or use a profile of one ball such as rob28."
        )


def _after(stage: Stage, profile: Profile, m: Measurement) -> dict[str, np.ndarray]:
    """Scores after an attack on all queries of a stage."""
    parts = []
    for start in range(0, len(stage.rows), profile.batch):
        places = slice(start, min(start + profile.batch, len(stage.rows)))
        parts.append(measure(stage, m, places, checked=False)[0])
    names = [n for n in parts[0] if n.startswith("after/")]
    return {n.removeprefix("after/"): np.concatenate([p[n] for p in parts]) for n in names}


def write_examples(stage: Stage, profile: Profile, out: Path, count: int) -> Path:
    """Attack a few queries and write images and neighbour lists into `examples-PROFILE.npz`.

    Raises:
        ValueError: for less than one example, or a profile without any attack that can be shown.
    """
    check_pictures(profile, count)
    order = Draws(stage.seed, "examples").bits("query", stage.rows).argsort()
    chosen = order[: min(count, len(order))].sort().values
    some = stage.only(chosen)
    places = slice(0, len(chosen))
    images, scene, index = some.block(places)
    album = _Album(stage)
    arrays: dict[str, np.ndarray] = {}
    shown = [m for m in profile.measurements if m.name in SHOWN]
    for m in shown:
        draws = Draws(stage.seed, "attack").under(m.stream or m.name)
        surrogate = some.surrogate(m.surrogate, places)
        outcome = m.attack(stage.metric, scene, images, draws=draws, index=index, surrogate=surrogate)
        aims = outcome.aims[:, 0] if outcome.aims.shape[1] else torch.full((len(chosen),), -1)
        arrays |= {
            f"{m.name}/query": album.rows(some.rows),
            f"{m.name}/adversarial": outcome.images.permute(0, 2, 3, 1).cpu().numpy(),
            f"{m.name}/before": album.gallery_rows(_nearest(some, some.z)),
            f"{m.name}/after": album.gallery_rows(_nearest(some, stage.metric.embed(outcome.images))),
            f"{m.name}/target": album.gallery_rows(aims[:, None])[:, 0],
            f"{m.name}/perturbs": np.array(m.goal.perturbs),
        }
    arrays |= album.arrays() | {
        "attacks": np.array([m.name for m in shown]),
        "eps": np.array(profile.measurements[0].adversary.ball.eps),
    }
    path = out / f"examples-{profile.name}.npz"
    write_npz(path, arrays)
    return path


def check_pictures(profile: Profile, count: int) -> None:
    """Raise for less than one example, or a profile without any attack that can be shown."""
    if count < 1:
        raise ValueError(f"--examples must be at least 1, got {count}.")
    if not {m.name for m in profile.measurements} & set(SHOWN):
        raise ValueError(
            f"--examples shows what {', '.join(SHOWN)} do to rankings of images; profile {profile.name} has none of "
            "them. Leave it out, or use a profile such as rob28."
        )


def _nearest(stage: Stage, z: Float[Tensor, "e d"]) -> Int[Tensor, "e k"]:
    """Gallery rows of the nearest items, without the own copy."""
    gallery = stage.system.gallery.z
    k = min(NEIGHBOURS, len(gallery) - 1)
    return neighbours(stage.metric.distance, z, gallery, k, itself=stage.itself)[1]


class _Album:
    """Images by data set index, each stored once."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.place: dict[int, int] = {}

    def rows(self, index: Int[Tensor, "e"]) -> np.ndarray:
        """Places in the album of data set indices, added if they are new."""
        return np.array([self.place.setdefault(i, len(self.place)) for i in index.tolist()], dtype=np.int64)

    def gallery_rows(self, rows: Int[Tensor, "e k"]) -> np.ndarray:
        """The same for gallery rows; -1 stays -1."""
        index = self.stage.data.split.gallery[rows.cpu().clamp_min(0)]
        found = (
            self.rows(index.flatten()).reshape(index.shape)
            if bool((rows >= 0).any())
            else np.zeros(index.shape, dtype=np.int64)
        )
        return np.where(rows.cpu().numpy() >= 0, found, -1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Images as 8 bit [m h w c], with index, label and class names."""
        index = torch.tensor(list(self.place))
        images = self.stage.data.batch(index).permute(0, 2, 3, 1)
        return {
            "images": (images * 255).round().to(torch.uint8).numpy(),
            "image_index": index.numpy(),
            "image_label": self.stage.data.labels[index].numpy(),
            "class_names": np.array(self.stage.data.class_names),
        }
