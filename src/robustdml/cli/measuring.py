"""What `attack` and `benchmark` do alike: run a profile on a target and print its scorecard. Imported once needed."""

import re
from pathlib import Path
from typing import Literal

from robustdml.benchmark import benchmark, stage, surrogates_of
from robustdml.clean import remarks
from robustdml.cli import failures, show, terminal
from robustdml.cli.options import Measured
from robustdml.command import COMMAND
from robustdml.curves import check_one_budget, check_pictures, write_curve, write_examples
from robustdml.interruption import Interrupted
from robustdml.plan import plan_benchmark
from robustdml.profile import Profile, for_data, transferred
from robustdml.targets import Plan, device_named, plan
from robustdml.types import RunReference


def target_of(options: Measured, precision: str | None = None) -> Plan:
    """The target that the options name."""
    return plan(
        options.target, data=options.data, distance=options.distance, recipe=options.recipe, precision=precision
    )


def by_way_of(profile: Profile, surrogate: Path | None, energy_gallery: Literal["surrogate", "target"]) -> Profile:
    """The profile, transferred from a surrogate if one is given.

    Raises:
        UsageError: for a gallery to compare a surrogate with, without a surrogate.
    """
    if surrogate is None:
        if energy_gallery != "surrogate":
            raise failures.UsageError("--energy-gallery says what a surrogate is compared with: add --surrogate RUN.")
        return profile
    return transferred(profile, RunReference(str(surrogate)), _label(surrogate), energy_gallery)


def _label(run: Path) -> str:
    """The folders of a run below `runs` or the current folder: results by way of different runs are different files."""
    whole, here = run.resolve(), Path.cwd()
    parts = whole.relative_to(here).parts if whole.is_relative_to(here) else whole.parts[-2:]
    below = parts[parts.index("runs") + 1 :] if "runs" in parts[:-1] else parts
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", "-".join(p for p in below if p != "checkpoints")).strip("-.")


def dry_run(target: Plan, profile: Profile, options: Measured, queries: int | None) -> int:
    """Print what a profile would cost."""
    value = plan_benchmark(target, profile, queries=queries)
    terminal.document(value) if options.json else terminal.lines(show.plan(value))
    return 0


def measure(
    planned: Plan, profile: Profile, options: Measured, queries: int | None, *, curve: bool = False, examples: int = 0,
    strict: bool = False,
) -> int:  # fmt: skip
    """Attack, print, and return the exit code."""
    if curve:
        check_one_budget(profile)
    if examples:
        check_pictures(profile, examples)
    target = planned.load(data_root=options.data_root, device=device_named(options.device), cache=options.cache)
    profile, metric = for_data(profile, target.data.name), profile.metric(target.metric)
    out = options.out or target.out
    try:
        with terminal.Progress(options.quiet) as progress:
            card = benchmark(metric, target.data, profile, out, seed=options.seed, queries=queries,
                             about=target.about, progress=progress)  # fmt: skip
            if (curve or examples) and terminal.is_speaker():
                others = surrogates_of(profile, metric, target.data)
                ready = stage(metric, target.data, seed=options.seed, queries=queries, surrogates=others)
                if curve:
                    write_curve(ready, profile, out, name=card["name"], progress=progress)
                if examples:
                    write_examples(ready, profile, out, examples)
    except Interrupted as stop:
        raise Interrupted(COMMAND.get()) from stop
    file = out / f"benchmark-{profile.name}.json"
    terminal.document(card) if options.json else terminal.lines(show.scorecard(card, remarks(card), file))
    return failures.UNRELIABLE if strict and card["unreliable"] and terminal.is_speaker() else 0
