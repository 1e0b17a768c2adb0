"""The only training loop: one process or many, fp32 or bf16, resumable at every checkpoint."""

import math
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import nn

from robustdml.data.cache import cached
from robustdml.data.errors import DataError
from robustdml.data.images import ImageSet
from robustdml.data.loading import workers_for
from robustdml.data.splits import hold_out
from robustdml.deep_metric import trained_metric
from robustdml.defenses.defense import first_memory
from robustdml.draws import Draws, own_generators
from robustdml.evaluate import evaluate
from robustdml.interruption import Interrupted, stop_signals
from robustdml.monitors import check_finite, check_weights, line, warn_of_collapse
from robustdml.recipe import Recipe
from robustdml.runs import (
    WEIGHTS,
    RunFolder,
    build,
    in_precision,
    provenance,
    read_recipe,
    read_weights,
)
from robustdml.serial import Json
from robustdml.start import begin
from robustdml.trainer import Position, Trainer

LOG_EVERY = 49
"""Optimiser steps between two log entries with collapse monitors; odd, so that both steps of a defense that takes
turns are seen."""
SAVE_EVERY_SECONDS = 600
Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, how it goes), called after every step."""


def train(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int | None = 0,
    cache: bool = False,
    track: Literal["tensorboard", "wandb"] | None = None,
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
        track: an experiment tracker that gets the numbers of log.jsonl too; TensorBoard writes below `out`.
        report: receives one line at a time.
        progress: called after every step with steps done, steps in all, and how it goes.

    Raises:
        DataError: if data or checkpoint are missing or damaged.
        FileExistsError: if `out` holds a run and `resume` is off.
        ImportError: if the tracker is not installed.
        FloatingPointError: if the loss or a weight becomes NaN or infinite.
        Interrupted: after SIGINT or SIGTERM, with everything saved.
    """
    if track is not None and find_spec(track) is None:
        raise ImportError(f"--track {track} needs the package {track}. Install it with: pip install {track}")
    accelerator = Accelerator(
        cpu=device == "cpu" or not torch.cuda.is_available(), log_with=track, project_dir=out if track else None
    )
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
    restored = resume and folder.has_checkpoint
    trainer = prepare(recipe, data, accelerator, workers=count, restored=restored)
    made_with = provenance(recipe.seed, accelerator.device) | {
        "data": everything.fingerprint(),
        "processes": accelerator.num_processes,
    }
    if resume:
        if restored:
            restore(trainer, folder)
        if accelerator.is_main_process:
            folder.cut_log(trainer.position.total)
        if restored:
            report(f"resuming at epoch {trainer.position.epoch}, step {trainer.position.step}")
        else:
            report(f"{out} holds no checkpoint to resume: beginning at epoch 0")
    elif accelerator.is_main_process:
        folder.begin(recipe, made_with)
    accelerator.wait_for_everyone()
    if track is not None:
        project = "robustdml" if track == "wandb" else track
        accelerator.init_trackers(project, init_kwargs={"wandb": {"name": recipe.name, "dir": str(out)}})
    total = recipe.epochs * trainer.steps_per_epoch
    if recipe.averaging and total * (1 - recipe.averaging) < 1:
        warnings.warn(
            f"averaging {recipe.averaging} remembers about {1 / (1 - recipe.averaging):,.0f} steps and this training "
            f"has {total:,}: much of the result is the weights it begins with. Train longer, or lower --averaging.",
            stacklevel=2,
        )
    with stop_signals() as stopped:
        run(trainer, folder, validation, stopped, report, progress)
    for tracker in accelerator.trackers:  # end_training would take the process group down, which now and then aborts
        tracker.finish()
    if accelerator.is_main_process:
        folder.finish(made_with)
    return out


def numbers(entry: Json) -> dict[str, float]:
    """The numbers of a log entry by flat names, as trackers want them."""
    flat = {k: v for k, v in entry.items() if not isinstance(v, dict)}
    flat |= {f"{k}/{name}": v for k, own in entry.items() if isinstance(own, dict) for name, v in own.items()}
    return {name: float(v) for name, v in flat.items() if name != "step" and isinstance(v, (int, float))}


def prepare(
    recipe: Recipe, data: ImageSet, accelerator: Accelerator, *, workers: int = 0, restored: bool = False
) -> Trainer:
    """Model, loss and optimisers of a recipe before its first step.

    Args:
        restored: whether a checkpoint will bring the weights, so that those to begin with are not needed.
    """
    embedder = build(recipe, data.shape)
    if not restored:
        begin(embedder, recipe)
    embedder = embedder.to(accelerator.device).train()
    try:
        with own_generators(recipe.seed):
            loss = recipe.loss.build(data.num_classes, embedder.dim)
    except OSError as error:
        raise DataError(str(error)) from error
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
    made = Trainer(recipe, data, accelerator, embedder, loss, optimisers, {}, Position(), -math.inf, draws, workers)
    made.memory = first_memory(recipe.defense, made.running)
    return made


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
    trainer.restore(state, tensors, path / WEIGHTS)
    trainer.restore_own(own, state["processes"])


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
                warned = warned or warn_of_collapse(entry, len(batch.index))
                if trainer.accelerator.is_main_process:
                    folder.log(entry)
                    trainer.accelerator.log(numbers(entry), step=position.total)
                    report(line(entry, recipe.epochs))
            halt = trainer.anywhere(stopped())
            if halt or trainer.anywhere(time.monotonic() - saved > SAVE_EVERY_SECONDS):
                save(trainer, folder)
                saved = time.monotonic()
            if halt:
                raise Interrupted(f"robustdml train {recipe.name} --out {folder.path} --resume")
        position.epoch, position.step = position.epoch + 1, 0
        if validation is not None and position.epoch % recipe.validation.every == 0:
            validate(trainer, folder, validation, report)
        save(trainer, folder)
        saved = time.monotonic()


def validate(trainer: Trainer, folder: RunFolder, data: ImageSet, report: Callable[[str], None]) -> None:
    """Score the held-out images; keep the weights if the recipe chooses by them and they are the best so far."""
    check_weights(trainer.broken(), trainer.position.total)
    judged = in_precision(trainer.result, trainer.recipe.precision)
    scores = evaluate(trained_metric(judged, trainer.loss), data, seed=trainer.recipe.seed).scores
    if trainer.accelerator.is_main_process:
        entry = {"epoch": trainer.position.epoch, "step": trainer.position.total, "validation": scores}
        folder.log(entry)
        trainer.accelerator.log(numbers(entry), step=trainer.position.total)
        report(f"epoch {trainer.position.epoch}: validation recall@1 {scores['recall@1']:.4f}")
    if trainer.recipe.validation.choose and scores["recall@1"] > trainer.best:
        trainer.best = scores["recall@1"]
        if trainer.accelerator.is_main_process:
            why = {"figure": "validation recall@1", "value": trainer.best, "epoch": trainer.position.epoch}
            folder.save_best(trainer.result, trainer.loss, trainer.recipe, why)


def save(trainer: Trainer, folder: RunFolder) -> None:
    """A complete checkpoint, with the state of every process."""
    check_weights(trainer.broken(), trainer.position.total)
    own = trainer.own_state()
    gathered: list[Json] = [own]
    if trainer.accelerator.num_processes > 1:
        gathered = [None] * trainer.accelerator.num_processes
        torch.distributed.all_gather_object(gathered, own)
    if trainer.accelerator.is_main_process:
        p = trainer.position
        folder.save(
            f"epoch-{p.epoch}-step-{p.step}", trainer.result, trainer.loss, trainer.recipe, trainer.state(), gathered
        )
    trainer.accelerator.wait_for_everyone()
