"""Do adversarial triplets mislead? How defenses change the gradient of the triplet loss, without any training.

RobRank's statistics of misleading gradients (arXiv:2106.03614): for the same mined triplets, clean and as a defense
moved them, the cosines between the gradients to anchor, positive and negative, and the change of hardness.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary
from robustdml.benchmark import write_npz
from robustdml.data import DataError
from robustdml.data.batches import Spc2
from robustdml.data.images import ImageSet
from robustdml.deep_metric import DeepMetric
from robustdml.defenses import (
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    Defense,
    HardnessManipulation,
    MinMax,
    ShiftTraining,
    TripletCollapse,
)
from robustdml.defenses.defense import clean_embeddings
from robustdml.distance import Cosine
from robustdml.draws import Draws
from robustdml.energies import hardness
from robustdml.evaluate import device_of, images_on
from robustdml.files import write_json
from robustdml.losses import Triplet
from robustdml.losses.tuples import mine
from robustdml.mining import MINERS, Miner, Random
from robustdml.models.embedder import frozen
from robustdml.plugins import installed
from robustdml.report.diagnosis import write_figure
from robustdml.runs import now, provenance
from robustdml.serial import Json, nearest, to_json
from robustdml.types import Batch

SCHEMA = 1
DEFENSES: dict[str, Callable[[Adversary], Defense]] = {
    "EST": ShiftTraining,
    "REST": AnchoredShiftTraining,
    "ACT": AntiCollapse,
    "AMD": MinMax,
    "RAMD": AnchoredMinMax,
    "TBC": TripletCollapse,
    "ACAP": AlternatingCollapse,
    "HM": HardnessManipulation,
}
"""Defenses that move the members of triplets, by the names of the papers."""
COSINES = ("anchor", "positive", "negative")
STATISTICS = (*COSINES, "efficiency")
Normalisation = Literal["per-row", "as-published"]


def triplet_gradients(z: Float[Tensor, "t 3 d"], normalisation: Normalisation = "per-row") -> Float[Tensor, "t 3 d"]:
    """Gradients of d(a, p) - d(a, n) to a, p and n: u(a - p) - u(a - n), u(p - a), u(a - n) with u(v) = v / |v|.

    Note: the published script divides by the norm of all rows together (`as-published`), which changes the mixture in
    the first of the three.
    """
    a, p, n = z.unbind(dim=1)

    def unit(v: Tensor) -> Tensor:
        return F.normalize(v, dim=1) if normalisation == "per-row" else v / v.norm()

    return torch.stack([unit(a - p) - unit(a - n), unit(p - a), unit(a - n)], dim=1)


def gradient_cosines(
    clean: Float[Tensor, "t 3 d"], moved: Float[Tensor, "t 3 d"], normalisation: Normalisation = "per-row"
) -> Float[Tensor, "t 3"]:
    """Cosine between clean and moved gradient for anchor, positive and negative, in [-1, 1]; below 0 they contradict.

    The embeddings are compared as they are: normalise first what is ranked on the sphere.
    """
    return F.cosine_similarity(triplet_gradients(clean, normalisation), triplet_gradients(moved, normalisation), dim=-1)


def batch_efficiency(clean: Float[Tensor, "t 3 d"], moved: Float[Tensor, "t 3 d"]) -> Float[Tensor, "t"]:
    """Hardness (cosine distance) of the moved minus that of the clean triplet, in [-4, 4]: above 0 it is harder."""
    return hardness(Cosine(), *moved.unbind(dim=1)) - hardness(Cosine(), *clean.unbind(dim=1))


@dataclass(frozen=True)
class Diagnosis:
    """What to compare.

    All defenses see the same batches of training images and the same triplets, mined on clean embeddings.

    Args:
        defenses: by the name under which they are shown.
        triplets: how many in all, one per pair.
        pairs: per batch; `as-published` depends on it.

    Raises:
        ValueError: if nothing is asked for.
    """

    defenses: dict[str, Defense]
    miner: Miner = field(default_factory=Random)
    triplets: int = 1024
    pairs: int = 128
    normalisation: Normalisation = "per-row"

    def __post_init__(self) -> None:
        if not self.defenses:
            raise ValueError(f"a diagnosis needs at least one defense of {', '.join(DEFENSES)}.")
        if self.triplets < 1 or self.pairs < 2:
            raise ValueError(
                f"a diagnosis needs at least 1 triplet and 2 pairs per batch, got {self.triplets} and {self.pairs}."
            )


def defenses_named(names: Sequence[str], adversary: Adversary) -> dict[str, Defense]:
    """Defenses by the names of the papers, or installed ones that are made of an adversary; all with this one.

    Raises:
        ValueError: for an unknown name.
    """
    known: dict[str, Callable[[Adversary], Defense]] = {**DEFENSES, **installed("defenses")}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown defense {name!r} for a diagnosis. {nearest(name, list(known))}")
    return {name: known[name](adversary) for name in names}


def miner_named(name: str) -> Miner:
    """A miner with its default settings, by the name of its class.

    Raises:
        ValueError: if there is none.
    """
    known = {**MINERS, **installed("miners")}
    if name not in known:
        raise ValueError(f"unknown miner {name!r}. {nearest(name, list(known))}")
    return known[name]()


def diagnose(
    metric: DeepMetric,
    data: ImageSet,
    diagnosis: Diagnosis,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, dict[str, Float[Tensor, "t"]]]:
    """By defense and statistic, one number per triplet: three cosines and the efficiency. The model stays as it is.

    Distances bounded by a constant are taken to mean that embeddings live on the unit sphere.

    Raises:
        DataError: if there are no training images of at least two classes.
        ValueError: for a defense that does not report its embeddings.
    """
    train = data.split.train
    classes = len(data.labels[train].unique())
    if classes < 2:
        raise DataError(
            f"{data.name} has {len(train)} training images of {classes} classes; triplets need two classes at least."
        )
    draws = Draws(seed, "diagnosis")
    found: dict[str, dict[str, list[Tensor]]] = {name: {s: [] for s in STATISTICS} for name in diagnosis.defenses}
    done, epoch = 0, 0
    while done < diagnosis.triplets:
        order = Spc2(diagnosis.pairs).epoch(data.labels, train, draws=draws.under("epoch", epoch))
        for number, whole in enumerate(order):
            if done == diagnosis.triplets:
                break
            rows = whole[: 2 * (diagnosis.triplets - done)]
            for name, columns in _of_batch(metric, data, rows, diagnosis, draws.under("epoch", epoch, number)).items():
                for s, column in zip(STATISTICS, columns, strict=True):
                    found[name][s].append(column.cpu())
            done += len(rows) // 2
            progress(done, diagnosis.triplets, "triplets")
        epoch += 1
    return {name: {s: torch.cat(v) for s, v in own.items()} for name, own in found.items()}


def _of_batch(
    metric: DeepMetric, data: ImageSet, rows: Int[Tensor, "r"], diagnosis: Diagnosis, draws: Draws
) -> dict[str, list[Float[Tensor, "t"]]]:
    """The columns of every defense for the triplets of one batch."""
    device = device_of(metric)
    loss = Triplet(metric.distance, diagnosis.miner)
    batch = Batch(images_on(data, rows, device), data.labels[rows].to(device), rows.to(device))
    z = clean_embeddings(metric.embedder, batch.images)
    triplets = mine(loss, z, batch.labels, draws=draws, index=batch.index)
    batch = replace(batch, triplets=triplets)
    clean = metric.distance.place(torch.stack(triplets.of(z), dim=1))
    found = {}
    for name, defense in diagnosis.defenses.items():
        moved = metric.distance.place(_moved(metric, defense, loss, batch, draws))
        cosines = gradient_cosines(clean, moved, diagnosis.normalisation)
        found[name] = [*cosines.unbind(dim=1), batch_efficiency(clean, moved)]
    return found


def _moved(metric: DeepMetric, defense: Defense, loss: Triplet, batch: Batch, draws: Draws) -> Float[Tensor, "t 3 d"]:
    """Raw embeddings of the batch's triplets as the loss sees them in a step of the defense."""
    with frozen(metric.embedder):
        step = defense(metric.embedder, loss, batch, memory={}, progress=0.0, draws=draws, mean=lambda value: value)
    if step.z is None or batch.triplets is None:
        raise ValueError(f"{type(defense).__name__} does not say which embeddings its loss saw: let its Step carry z.")
    z = step.z.detach()
    return z if z.ndim == 3 else torch.stack(batch.triplets.of(z), dim=1)


def write_diagnosis(
    metric: DeepMetric,
    data: ImageSet,
    diagnosis: Diagnosis,
    out: Path,
    *,
    seed: int = 0,
    about: Json | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Json:
    """`diagnose`, and write `diagnosis.json`, `.npz` (every triplet), `.png` and `.svg` into `out`.

    Args:
        about: what else the file should say (name, defense, loss, model).

    Returns:
        The content of the JSON file.
    """
    made_with = provenance(seed, device_of(metric))
    found = diagnose(metric, data, diagnosis, seed=seed, progress=progress)
    value: Json = {
        "schema": SCHEMA,
        "statistics": {name: {s: summary(v) for s, v in own.items()} for name, own in found.items()},
        "diagnosis": to_json(diagnosis),
        "dataset": data.name,
        "distance": type(metric.distance).__name__,
        **(about or {}),
        "seed": seed,
        "provenance": made_with | {"end": now(), "data": data.fingerprint()},
    }
    arrays = {name: {s: v.numpy() for s, v in own.items()} for name, own in found.items()}
    write_npz(out / "diagnosis.npz", {f"{name}/{s}": v for name, own in arrays.items() for s, v in own.items()})
    title = f"{value.get('name', 'model')} on {data.name}: {diagnosis.triplets} triplets, moved and clean"
    for suffix in ("png", "svg"):
        write_figure(arrays, out / f"diagnosis.{suffix}", title=title)
    write_json(out / "diagnosis.json", value)
    return value


def summary(v: Float[Tensor, "t"]) -> Json:
    """Mean, standard deviation, quartiles, and the share below zero."""
    return {
        "mean": float(v.mean()),
        "sd": float(v.std(correction=0)),
        "quartiles": v.quantile(v.new_tensor([0.25, 0.5, 0.75])).tolist(),
        "below_zero": float((v < 0).double().mean()),
    }
