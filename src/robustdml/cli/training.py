"""What `train` does once its words are read. Imported once needed."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustdml.clean import remarks
from robustdml.cli import show, terminal
from robustdml.cli.options import Running
from robustdml.command import COMMAND
from robustdml.interruption import Interrupted
from robustdml.plan import plan_training
from robustdml.recipe import Recipe
from robustdml.recipes import adjusted, check_resumed, recipe
from robustdml.serial import Json
from robustdml.targets import device_named, evaluate_run
from robustdml.train import train


def resolved(name: str, settings: list[tuple[str, str]], out: Path | None, *, resume: bool) -> tuple[Recipe, Path]:
    """The recipe with its settings, and its run folder; resuming, they must agree with what is saved there."""
    base = recipe(name)
    wanted = adjusted(base, settings)
    run = out or Path("runs") / wanted.name
    if resume and (run / "recipe.json").exists():
        check_resumed(run, base, settings)
    return wanted, run


def dry_run(recipe: Recipe, processes: int, *, as_json: bool) -> int:
    """Print what the training would cost."""
    value = plan_training(recipe, processes=processes)
    terminal.document(value) if as_json else terminal.lines(show.plan(value))
    return 0


@dataclass(frozen=True)
class Around:
    """What surrounds the training steps and changes no result: worker processes (None: as many as pay), the cache of
    decoded images, and a tracker that mirrors the log.
    """

    workers: int | None
    cache: bool
    track: Literal["tensorboard", "wandb"] | None = None


def carry_out(
    recipe: Recipe, run: Path, options: Running, resume: str, around: Around, *, resuming: bool, test: bool
) -> int:
    """Train, evaluate if wanted, print."""
    device = device_named(options.device)
    try:
        with terminal.Progress(options.quiet) as progress:
            if resuming and not (run / "recipe.json").exists():
                progress.note(f"nothing to resume in {run}: beginning")
            train(
                recipe,
                run,
                data_root=options.data_root,
                resume=resuming,
                device=device.type,
                workers=around.workers,
                cache=around.cache,
                track=around.track,
                report=progress.line,
                progress=progress,
            )
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(resume if (run / "recipe.json").exists() else COMMAND.get()) from stop
    value: Json = {"recipe": recipe.name, "run": str(run)}
    if test:
        value["evaluation"] = evaluate_run(
            run, data_root=options.data_root, device=device, cache=around.cache, write=terminal.is_speaker()
        )
    terminal.document(value) if options.json else terminal.lines(_lines(value, run))
    return 0


def _lines(value: Json, run: Path) -> list[str]:
    scores = value.get("evaluation")
    tested = show.evaluation(scores, remarks(scores), run / "evaluation.json") if scores else []
    return [*tested, *show.training(value)]


def resume_command(name: str, run: Path, again: Mapping[str, object], *, test: bool, cache: bool) -> str:
    """What continues this run, typed in the same folder."""
    words = ["robustdml", "train", name, "--out", str(run), "--resume"]
    words += [word for option, value in again.items() if value is not None for word in (f"--{option}", str(value))]
    return shlex.join([*words, *(f for f, on in (("--cache", cache), ("--test", test)) if on)])
