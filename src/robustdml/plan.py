"""What a command would cost: passes through the network and memory, without any data."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustdml.adversary import Ball, InTurn, Pgd
from robustdml.attacks import Surrogate
from robustdml.attacks.goals import Candidate
from robustdml.benchmark import counted, stage
from robustdml.data import DataError, Dataset, ImageSet, Split
from robustdml.data.folder import Folder
from robustdml.data.images import Pixels as PixelsInMemory
from robustdml.deep_metric import DeepMetric, trained_metric
from robustdml.defenses import Defense, branches
from robustdml.defenses.defense import adversary_of, first_memory, made_of, with_adversary
from robustdml.draws import Draws
from robustdml.losses import Loss
from robustdml.models import Pixels
from robustdml.models.embedder import Embedder
from robustdml.profile import Measurement, Profile, profile_to_json
from robustdml.recipe import Recipe, recipe_to_json
from robustdml.runs import build, in_precision
from robustdml.serial import Json
from robustdml.targets import Plan
from robustdml.types import Achieved, Batch, PixelEnergy

TRIAL_ROWS, TRIAL_ITEMS = 6, 32
"""Whole pairs and whole triplets alike."""
MIB = 2**20
_MIXED_FOLDER = (3, 224, 224)
_STEPS_ON_ONE_BATCH = 64
_BATCHES = 2


@dataclass(frozen=True)
class Size:
    """What is known of a data set without its files; counts are None where only the files tell."""

    shape: tuple[int, int, int]
    train: int | None
    test: int | None


def size_of(data: Dataset) -> Size:
    """Shape and counts of a data set; a folder is listed if it is there."""
    if data.shape is not None:
        train, test = data.split_sizes or (None, None)
        return Size(data.shape, train, test)
    try:
        found = data.load()
        return Size(found.shape, len(found.split.train), len(found.split.query))
    except DataError:
        side = data.image_size if isinstance(data, Folder) else None
        return Size((3, side, side) if side else _MIXED_FOLDER, None, None)


def plan_training(recipe: Recipe, *, processes: int = 1) -> Json:
    """Steps, passes and memory of a training run, from one step on random images."""
    size = size_of(recipe.data)
    rows = TRIAL_ROWS
    embedder = build(recipe, size.shape).train()
    try:
        loss = recipe.loss.build(recipe.data.num_classes or 2 * TRIAL_ROWS, embedder.dim)
    except OSError as error:
        raise DataError(str(error)) from error
    forward, backward, small = _trial(recipe, embedder, loss, rows)
    *_, large = _trial(recipe, embedder, loss, 2 * rows)
    repeats = max(getattr(defense, "repeats", 1) for defense in made_of(recipe.defense))
    items, rows_per_item = recipe.batches.items, recipe.batches.rows_per_item
    asked = None if size.train is None else rows_per_item * size.train * recipe.epochs
    weights = sum(p.numel() * p.element_size() for p in embedder.parameters())
    together = math.ceil(rows_per_item * items / recipe.accumulate)
    kept = max(_extrapolated(*both, rows, together) for both in zip(small, large, strict=True))  # whosever turn it is
    return {
        "recipe": recipe_to_json(recipe),
        "shape": list(size.shape),
        "training_images": size.train,
        "epochs": recipe.epochs,
        "images_per_batch": rows_per_item * items * processes,
        "steps": None if size.train is None else recipe.epochs * math.ceil(size.train / (items * processes)) * repeats,
        "parameters": sum(p.numel() for p in embedder.parameters()),
        **_passes(forward / rows, backward / rows, asked),
        "memory_mib": round((4 * weights + kept) / MIB + 1),
    }


def _trial(recipe: Recipe, embedder: Embedder, loss: Loss, rows: int) -> tuple[float, float, list[int]]:
    """Forward and backward passes of a step on some random images, and the most bytes held for it in each branch."""
    index = torch.arange(rows)
    images = Draws(0).uniform("plan", index, size_of(recipe.data).shape)
    batch = Batch(images, index // 2, index, recipe.batches.triplets(index))
    running = in_precision(embedder, recipe.precision)
    groups = embedder.parameter_groups() | loss.parameter_groups()
    turns = sum(map(bool, groups.values())) if recipe.alternate else 1
    forward, backward, most = 0.0, 0.0, []  # a mixture is paid for by share
    for share, defense in branches(_at_most(recipe.defense)):
        with counted(running) as cost, held(embedder) as saved:
            memory = first_memory(defense, running)
            for _ in range(_BATCHES):  # some defenses take turns from batch to batch
                memory = _train_once(recipe, defense, running, loss, batch, turns, memory)
        forward += share * cost.forward / _BATCHES
        backward += share * cost.backward / _BATCHES
        most.append(saved.most)
    return forward, backward, most


def _extrapolated(small: int, large: int, rows: int, wanted: int) -> float:
    """Bytes for `wanted` images, from those of `rows` and twice as many: copies of weights do not grow with them."""
    per_row = (large - small) / rows
    return max(0.0, small - per_row * rows) + per_row * wanted


def _at_most(defense: Defense) -> Defense:
    """The defense with all steps of its inner problem: how soon it is solved depends on the weights."""
    names: list[str] = [f.name for f in dataclasses.fields(defense)] if dataclasses.is_dataclass(defense) else []
    for name in names:
        inner = getattr(defense, name)
        if isinstance(inner, Defense):
            defense = dataclasses.replace(defense, **{name: _at_most(inner)})  # type: ignore[type-var]
    adversary = adversary_of(defense)
    if adversary is None or not isinstance(adversary.search, Pgd):
        return defense
    search = dataclasses.replace(adversary.search, saturation=None)
    return with_adversary(defense, dataclasses.replace(adversary, search=search))


def _train_once(
    recipe: Recipe,
    defense: Defense,
    embedder: Embedder,
    loss: Loss,
    batch: Batch,
    turns: int,
    memory: dict[str, Tensor],
) -> dict[str, Tensor]:
    """All that a defense does with one batch at the end of a training, and what it remembers."""
    for number in range(_STEPS_ON_ONE_BATCH):
        draws = Draws(recipe.seed, "plan").under(number)
        step = defense(embedder, loss, batch, memory=memory, progress=1.0, draws=draws, mean=lambda value: value)
        step.loss.backward()
        memory = step.after_backward() if step.after_backward else step.memory
        turns -= not step.again
        if turns < 1:
            break
    return memory


def plan_benchmark(target: Plan, profile: Profile, *, queries: int | None = None) -> Json:
    """Passes and memory of a benchmark, from one block of a small random gallery.

    The number of passes does not depend on the network, so a trivial one stands in while they are counted. Of searches
    in turn it is the most they can take, for an image that none of them turns.
    """
    size = size_of(target.data)
    if target.data.shape is not None:
        profile.check_images(size.shape)
    embedder = target.embedder(size.shape, trained=False)
    asked = size.test if queries is None else queries
    rows = TRIAL_ROWS
    targets = max((getattr(m.goal, n, 0) for m in profile.measurements for n in ("queries", "candidates")), default=0)
    items = max(TRIAL_ITEMS, size.test or 0) if targets > TRIAL_ITEMS // 4 else TRIAL_ITEMS
    pixels = (Draws(0).uniform("plan", torch.arange(items), (1, 4, 4)) * 255).to(torch.uint8)
    everything = torch.arange(len(pixels))
    trial = ImageSet(
        "plan", PixelsInMemory(pixels), everything % 2, Split(everything[:0], everything, everything), ("a", "b")
    )
    stand_in = Pixels().build((1, 4, 4))
    metric = trained_metric(stand_in, target.recipe.loss) if target.recipe else DeepMetric(stand_in, target.distance)
    ready = stage(metric, trial, queries=rows)
    images, scene, index = ready.block(slice(0, rows))
    with counted(ready.metric.embedder) as cost:
        for m in map(_to_the_end, profile.measurements):
            other = Surrogate(ready.metric, scene) if m.surrogate else None
            m.attack(ready.metric, scene, images, draws=Draws(0, m.name), index=index, surrogate=other)
    most = []
    for count in (2, 4):
        with held(embedder) as saved:
            z = embedder(Draws(0).uniform("plan", torch.arange(count), size.shape).requires_grad_())
        most.append(saved.most)
    gallery = size.test or 0
    foreign = {m.surrogate.path for m in profile.measurements if m.surrogate}
    sorted_tables = max([0, *(m.goal.queries for m in profile.measurements if isinstance(m.goal, Candidate))])
    weights = sum(p.numel() * p.element_size() for p in embedder.parameters())
    ranking = gallery * (
        z.shape[1] * 12 + profile.batch * 8 * (6 + sorted_tables)
    )  # embeddings twice, and float64 blocks of distances: six, and one for each query of CA
    return {
        "profile": profile_to_json(profile),
        "target": target.text,
        "out": str(target.out),
        "shape": list(size.shape),
        "queries": asked,
        "gallery": size.test,
        **({"surrogates": sorted(foreign)} if foreign else {}),
        "attacks": [m.name for m in profile.measurements],
        "batch": profile.batch,
        "parameters": sum(p.numel() for p in embedder.parameters()),
        **_passes(cost.forward / rows, cost.backward / rows, asked, once=gallery * (1 + len(foreign))),
        "memory_mib": round((weights + _extrapolated(most[0], most[1], 2, profile.batch) + ranking) / MIB + 1),
    }


@dataclass(frozen=True)
class _Unsatisfied:
    """A search that is not told when its goal is reached."""

    search: InTurn

    @property
    def gradients(self) -> int:
        return self.search.gradients

    def __call__(
        self, energy: PixelEnergy, x: Tensor, ball: Ball, *, achieved: Achieved | None = None, **others: Any
    ) -> Tensor:
        return self.search(energy, x, ball, **others)


def _to_the_end(m: Measurement) -> Measurement:
    search = m.adversary.search
    if not isinstance(search, InTurn):
        return m
    return replace(m, adversary=replace(m.adversary, search=_Unsatisfied(search)))


def _passes(forward: float, backward: float, images: int | None, once: int = 0) -> Json:
    """Image passes per image, and in all if their number is known."""
    return {
        "forward_per_image": forward,
        "backward_per_image": backward,
        "forward": None if images is None else round(forward * images) + once,
        "backward": None if images is None else round(backward * images),
    }


@dataclass
class Held:
    """Bytes that autograd holds for the backward pass, now and at most."""

    now: int = 0
    most: int = 0

    def add(self, size: int) -> None:
        """Count bytes that are kept, or given back if negative."""
        self.now += size
        self.most = max(self.most, self.now)


class _Kept:
    def __init__(self, tensor: Tensor, count: Held, own: set[int]) -> None:
        self.tensor, self.count = tensor, count
        self.size = 0 if tensor.data_ptr() in own else tensor.numel() * tensor.element_size()
        count.add(self.size)

    def __del__(self) -> None:
        self.count.add(-self.size)


@contextmanager
def held(module: nn.Module) -> Iterator[Held]:
    """Counts the bytes that autograd holds, weights of `module` left out."""
    count, own = Held(), {p.data_ptr() for p in module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _Kept(t, count, own), lambda kept: kept.tensor):
        yield count
