"""The whole story on the embedded digits: train a plain and a robust model, attack both, and write the report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from robustdml.benchmark import benchmark, stage
from robustdml.curves import write_curve, write_examples
from robustdml.profile import PROFILES
from robustdml.recipe import Recipe
from robustdml.recipes.digits import act_digits_small, plain_digits_small
from robustdml.report.page import build_report
from robustdml.runs import checkpoint, described
from robustdml.serial import Json
from robustdml.train import train

PROFILE = "rob28"
CURVE_QUERIES = 128
EXAMPLES = 3


def demo(
    out: Path,
    *,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Json]:
    """Train, measure and report into `out`; what an earlier demo left there is replaced.

    Returns:
        The scorecards by recipe name; the page is `out/report.html`.
    """
    cards: dict[str, Json] = {}
    folders = []
    for make in (plain_digits_small, act_digits_small):
        recipe = make()
        folder = out / recipe.name
        if (folder / "recipe.json").exists():
            shutil.rmtree(folder)
        report(f"training {recipe.name}: {make.__doc__}")
        train(recipe, folder, device="cpu", report=report)
        cards[recipe.name] = score(recipe, folder, seed, progress)
        folders.append(folder)
    build_report(folders, out / "report.html", title="robustdml demo: plain and robust digits")
    return cards


def score(recipe: Recipe, folder: Path, seed: int, progress: Callable[[int, int, str], None]) -> Json:
    """Scorecard, curve and pictures of a finished run."""
    data = recipe.data.load()
    metric = checkpoint(folder).metric(data.shape, torch.device("cpu"))
    profile = PROFILES[PROFILE]
    card = benchmark(metric, data, profile, folder, seed=seed, about=described(recipe), progress=progress)
    few = stage(metric, data, seed=seed, queries=CURVE_QUERIES)
    write_curve(few, profile, folder, name=recipe.name, progress=progress)
    write_examples(few, profile, folder, EXAMPLES)
    return card
