"""The only training loop: one process or many, fp32 or bf16, resumable at every checkpoint."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn

from robustdml.data.batches import Batches, whole_parts
from robustdml.data.cache import cached
from robustdml.data.images import ImageSet
from robustdml.data.loading import Loader, Views, workers_for
from robustdml.data.splits import hold_out
from robustdml.deep_metric import trained_metric
from robustdml.defenses.defense import clean_embeddings
from robustdml.draws import Draws, own_generators
from robustdml.evaluate import accuracy, checked, collapse_statistics, evaluate
from robustdml.interruption import Interrupted, stop_signals
from robustdml.losses import Loss, TripletLoss
from robustdml.losses.tuples import mine
from robustdml.models.embedder import Embedder
from robustdml.monitors import check_finite, line, warn_of_collapse
from robustdml.recipe import Recipe
from robustdml.runs import (
    WEIGHTS,
    RunFolder,
    build,
    in_precision,
    load_weights,
    provenance,
    read_recipe,
    read_weights,
)
from robustdml.serial import Json
from robustdml.start import begin
from robustdml.types import Batch, arange_like

LOG_EVERY = 50
"""Optimiser steps between two log entries with collapse monitors."""
SAVE_EVERY_SECONDS = 600
Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, how it goes), called after every step."""


@dataclass
class Position:
    """Where a run is: epochs done, steps done in this epoch, and optimiser steps in all."""

    epoch: int = 0
    step: int = 0
    total: int = 0


@dataclass
class Trainer:
    """One run in progress."""

    recipe: Recipe
    data: ImageSet
    accelerator: Accelerator
    embedder: Embedder
    loss: Loss
    optimisers: dict[str, torch.optim.Optimizer]
    memory: dict[str, Tensor]
    position: Position
    best: float
    draws: Draws
    workers: int = 0

    def __post_init__(self) -> None:
        self.running = in_precision(self.embedder, self.recipe.precision)
        self.loader = Loader(self.data, workers=self.workers, skip_damaged=self.recipe.damaged == "skip")

    def mean(self, value: Tensor) -> Tensor:
        """The average of a tensor over processes."""
        return self.accelerator.reduce(value.detach().clone(), "mean")

    def batches(self) -> list[Int[Tensor, "r"]]:
        """What this process sees in the current epoch, step by step."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return self.recipe.batches.epoch(
            self.data.labels,
            self.data.split.train,
            draws=self.draws.under("epoch", self.position.epoch),
            rank=rank,
            world=world,
        )

    def loaded(self, steps: list[Int[Tensor, "_"]]) -> Iterator[Batch]:
        """The training views of some steps of the current epoch, on the device."""
        draws = self.draws.under("epoch", self.position.epoch)
        device, batches = self.accelerator.device, self.recipe.batches
        for views in self.loader.epoch([Views(rows, batches.rows_per_item, draws) for rows in steps]):
            images, index = checked(self.data.name, views.images).to(device), views.rows.to(device)
            yield Batch(images, self.data.labels[views.rows].to(device), index, batches.triplets(index))

    def step(self, batch: Batch) -> dict[str, float]:
        """One batch: as many optimiser steps as the defense asks for."""
        recipe, position, rows = self.recipe, self.position, batch.index
        total = int(self.accelerator.reduce(torch.tensor(len(rows), device=self.accelerator.device), "sum"))
        fewest = total // recipe.batches.rows_per_item // self.accelerator.num_processes  # all must ask for means alike
        progress = (position.epoch + position.step / max(1, self.steps_per_epoch)) / recipe.epochs
        turns = [(name,) for name in self.optimisers] if recipe.alternate else [tuple(self.optimisers)]
        turn, repeat, logs = 0, 0, {}
        while turn < len(turns):
            draws = self.draws.under("epoch", position.epoch, position.step, repeat)
            logs, update, again = {"loss": 0.0}, None, False
            for optimiser in self.optimisers.values():
                optimiser.zero_grad(set_to_none=True)
            parts = min(recipe.accumulate, max(1, fewest))
            for part in whole_parts(arange_like(rows), recipe.batches.rows_per_item, parts):
                with own_generators(draws.number("layers")):  # dropout depends on the step alone
                    out = recipe.defense(
                        self.running,
                        self.loss,
                        piece(batch, part, recipe.batches),
                        memory=self.memory,
                        progress=progress,
                        draws=draws,
                        mean=self.mean if fewest else torch.Tensor.detach,
                    )
                    (out.loss * (len(part) / total * self.accelerator.num_processes)).backward()
                self.memory = out.after_backward() if out.after_backward else out.memory
                update, again = out.update, out.again
                for name, value in {"loss": float(out.loss.detach()), **out.logs}.items():
                    logs[name] = logs.get(name, 0.0) + value * len(part) / max(1, len(rows))
            self._update([name for name in turns[turn] if update is None or name in update])
            repeat += 1
            turn += not _anywhere(again, self.accelerator)  # a process without images goes along
        if self.accelerator.num_processes > 1:  # so that all log the run's loss, and stop together if it is not finite
            own = torch.tensor(logs["loss"] * len(rows), device=self.accelerator.device)
            logs["loss"] = float(self.accelerator.reduce(own, "sum")) / total
        return logs

    def _update(self, names: list[str]) -> None:
        recipe = self.recipe
        weights = [p for o in self.optimisers.values() for g in o.param_groups for p in g["params"]]
        average_gradients(weights, self.accelerator)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(weights, recipe.clip)
        for name in names:
            for group in self.optimisers[name].param_groups:
                group["lr"] = self._rate(name)
            self.optimisers[name].step()
        self.position.total += 1

    def _rate(self, group: str) -> float:
        recipe = self.recipe
        return recipe.groups.get(group, recipe.optimiser).lr * recipe.shrinkage(self.position.epoch)

    def rates(self) -> dict[str, float]:
        """The learning rate, and those of groups with settings of their own."""
        common = self.recipe.optimiser.lr * self.recipe.shrinkage(self.position.epoch)
        return {"lr": common} | {f"lr/{name}": self._rate(name) for name in self.recipe.groups}

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        items = self.recipe.batches.items * self.accelerator.num_processes
        return math.ceil(len(self.data.split.train) / items)

    def monitors(self, batch: Batch) -> dict[str, float]:
        """Collapse monitors on the clean images of a batch."""
        z, metric = clean_embeddings(self.running, batch.images), trained_metric(self.running, self.loss)
        found = collapse_statistics(metric, z)
        if isinstance(self.loss, TripletLoss):
            draws = self.draws.under("monitor", self.position.total)
            triplets = batch.triplets or mine(self.loss, z, batch.labels, draws=draws, index=batch.index)
            found["active_triplets"] = float(self.loss.active(torch.stack(triplets.of(z), dim=1)).float().mean())
        if metric.prototypes is not None:
            found["accuracy"] = accuracy(z, batch.labels, metric.prototypes)
        return found

    def state(self) -> Json:
        """What a resumed run needs besides weights, the same on all processes."""
        return {
            "position": [self.position.epoch, self.position.step, self.position.total],
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "best": self.best,
            "processes": self.accelerator.num_processes,
        }


def piece(batch: Batch, part: Int[Tensor, "p"], batches: Batches) -> Batch:
    """Consecutive rows of a batch; nothing is copied."""
    rows = slice(int(part[0]), int(part[-1]) + 1)
    index = batch.index[rows]
    return Batch(batch.images[rows], batch.labels[rows], index, batches.triplets(index))


def average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average gradients over processes in one flattened all-reduce; weights without a gradient count as zero."""
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    flat = accelerator.reduce(flat, "mean")
    for p, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = gradient.reshape(p.shape)


def train(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int | None = 0,
    cache: bool = False,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total, what: None,
) -> Path:
    """Train a recipe into a run folder and return it.

    Args:
        resume: continue at the newest checkpoint of `out`; the recipe saved there is used. Where a run has none yet, or
            there is no run, it starts at the beginning.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        workers: processes that decode images ahead, 0 for none; None for as many as pay. Results do not depend on it.
            A script that asks for them keeps its own statements under `if __name__ == "__main__":`.
        cache: keep the decoded images on disk (`robustdml.data.cache`).
        report: receives one line at a time.
        progress: called after every step with steps done, steps in all, and how it goes.

    Raises:
        DataError: if data or checkpoint are missing or damaged.
        FileExistsError: if `out` holds a run and `resume` is off.
        FloatingPointError: if the loss becomes NaN or infinite.
        Interrupted: after SIGINT or SIGTERM, with everything saved.
    """
    accelerator = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
    if device is not None and torch.device(device).type != accelerator.device.type:
        raise ValueError(
            f"device {device!r} was asked for and accelerate offers {accelerator.device.type!r}. Use that, or choose "
            "GPUs with CUDA_VISIBLE_DEVICES."
        )
    folder = RunFolder(out)
    resume = resume and folder.begun
    accelerator.wait_for_everyone()  # before the first process makes the folder
    if resume:
        recipe = read_recipe(out / "recipe.json")
    everything = recipe.data.load(data_root)
    if cache:
        with accelerator.main_process_first():
            everything = cached(everything, data_root, report)
    data, validation = hold_out(everything, recipe.validation.share, recipe.seed)
    count = workers_for(data, accelerator.device, accelerator.num_processes) if workers is None else workers
    trainer = prepare(recipe, data, accelerator, workers=count)
    made_with = provenance(recipe.seed, accelerator.device) | {
        "data": everything.fingerprint(),
        "processes": accelerator.num_processes,
    }
    if resume:
        if folder.last.exists():
            restore(trainer, folder)
        if accelerator.is_main_process:
            folder.cut_log(trainer.position.total)
        report(f"resuming at epoch {trainer.position.epoch}, step {trainer.position.step}")
    elif accelerator.is_main_process:
        folder.begin(recipe, made_with)
    accelerator.wait_for_everyone()
    with stop_signals() as stopped:
        run(trainer, folder, validation, stopped, report, progress)
    if accelerator.is_main_process:
        folder.finish(made_with)
    return out


def prepare(recipe: Recipe, data: ImageSet, accelerator: Accelerator, *, workers: int = 0) -> Trainer:
    """Model, loss and optimisers of a recipe before its first step."""
    embedder = build(recipe, data.shape)
    begin(embedder, recipe)
    embedder = embedder.to(accelerator.device).train()
    with own_generators(recipe.seed):
        loss = recipe.loss.build(data.num_classes, embedder.dim)
    if isinstance(loss, nn.Module):
        loss.to(accelerator.device)
    groups = embedder.parameter_groups() | loss.parameter_groups()
    for name in recipe.groups:
        if name not in groups:
            raise ValueError(
                f"recipe {recipe.name}: no parameter group {name!r}; model and loss have {sorted(groups)}."
            )
    if not any(groups.values()):
        raise ValueError(
            f"recipe {recipe.name}: {type(recipe.model).__name__} has no weights to train. Evaluate it instead."
        )
    optimisers = {n: recipe.groups.get(n, recipe.optimiser).build(p) for n, p in groups.items() if p}
    draws = Draws(recipe.seed, "train")
    return Trainer(recipe, data, accelerator, embedder, loss, optimisers, {}, Position(), -math.inf, draws, workers)


def restore(trainer: Trainer, folder: RunFolder) -> None:
    """Put a trainer where the newest checkpoint left off."""
    rank = trainer.accelerator.process_index
    path, state, own = folder.state(rank)
    if state["processes"] != trainer.accelerator.num_processes:
        warnings.warn(
            f"the run was trained on {state['processes']} processes and resumes on "
            f"{trainer.accelerator.num_processes}: batches differ from here on",
            stacklevel=2,
        )
    tensors = read_weights(path / WEIGHTS)
    load_weights(trainer.embedder, tensors, path / WEIGHTS, trainer.recipe)
    if isinstance(trainer.loss, nn.Module):
        trainer.loss.load_state_dict({n.removeprefix("loss."): t for n, t in tensors.items() if n.startswith("loss.")})
    for name, optimiser in trainer.optimisers.items():
        optimiser.load_state_dict(state["optimisers"][name])
    trainer.position = Position(*state["position"])
    trainer.best = state["best"]
    trainer.memory = own["memory"]


def run(
    trainer: Trainer,
    folder: RunFolder,
    validation: ImageSet | None,
    stopped: Callable[[], bool],
    report: Callable[[str], None],
    progress: Progress,
) -> None:
    """Epochs until the recipe is done."""
    position, recipe = trainer.position, trainer.recipe
    saved = began = time.monotonic()
    warned = False
    while position.epoch < recipe.epochs:
        for batch in trainer.loaded(trainer.batches()[position.step :]):
            before, logs = position.total, trainer.step(batch)
            position.step += 1
            check_finite(logs["loss"], position.total)
            progress(
                position.epoch * trainer.steps_per_epoch + position.step,
                recipe.epochs * trainer.steps_per_epoch,
                f"epoch {position.epoch + 1} of {recipe.epochs}, loss {logs['loss']:.4f}",
            )
            if len(batch.index) and (before == 0 or position.total // LOG_EVERY > before // LOG_EVERY):
                entry = {
                    "epoch": position.epoch + position.step / trainer.steps_per_epoch,
                    "step": position.total,
                    **logs,
                    **trainer.rates(),
                    **trainer.monitors(batch),
                    "seconds": round(time.monotonic() - began, 2),
                }
                warned = warned or warn_of_collapse(entry)
                if trainer.accelerator.is_main_process:
                    folder.log(entry)
                    report(line(entry, recipe.epochs))
            halt = _anywhere(stopped(), trainer.accelerator)
            if halt or _anywhere(time.monotonic() - saved > SAVE_EVERY_SECONDS, trainer.accelerator):
                save(trainer, folder)
                saved = time.monotonic()
            if halt:
                raise Interrupted(f"robustdml train {recipe.name} --out {folder.path} --resume")
        position.epoch, position.step = position.epoch + 1, 0
        if validation is not None and position.epoch % recipe.validation.every == 0:
            validate(trainer, folder, validation, report)
        save(trainer, folder)
        saved = time.monotonic()


def _anywhere(flag: bool, accelerator: Accelerator) -> bool:
    """Whether the flag is up on any process: all must save together."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def validate(trainer: Trainer, folder: RunFolder, data: ImageSet, report: Callable[[str], None]) -> None:
    """Score the held-out images; keep the weights if the recipe chooses by them and they are the best so far."""
    scores = evaluate(trained_metric(trainer.running, trainer.loss), data, seed=trainer.recipe.seed).scores
    if trainer.accelerator.is_main_process:
        folder.log({"epoch": trainer.position.epoch, "step": trainer.position.total, "validation": scores})
        report(f"epoch {trainer.position.epoch}: validation recall@1 {scores['recall@1']:.4f}")
    if trainer.recipe.validation.choose and scores["recall@1"] > trainer.best:
        trainer.best = scores["recall@1"]
        if trainer.accelerator.is_main_process:
            why = {"figure": "validation recall@1", "value": trainer.best, "epoch": trainer.position.epoch}
            folder.save_best(trainer.embedder, trainer.loss, trainer.recipe, why)


def save(trainer: Trainer, folder: RunFolder) -> None:
    """A complete checkpoint, with the memory of every process."""
    own = {"memory": {name: t.detach().cpu() for name, t in trainer.memory.items()}}
    gathered: list[Json] = [own]
    if trainer.accelerator.num_processes > 1:
        gathered = [None] * trainer.accelerator.num_processes
        torch.distributed.all_gather_object(gathered, own)
    if trainer.accelerator.is_main_process:
        p = trainer.position
        folder.save(
            f"epoch-{p.epoch}-step-{p.step}", trainer.embedder, trainer.loss, trainer.recipe, trainer.state(), gathered
        )
    trainer.accelerator.wait_for_everyone()
