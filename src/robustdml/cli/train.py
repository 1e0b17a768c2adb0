"""robustdml train: train a recipe into a run folder."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from robustdml.cli import processes
from robustdml.cli.options import File, Running, Whole, Word, fields, read

EXAMPLES = (
    "act-fashion-c2f2-quick",
    "act-fashion-c2f2 --defense.adversary.ball.eps 8/255 --epochs 4 --out runs/weak",
    "fashion:rc2f2p:pstripletN --test",
    "plain-digits-small --data folder:photos --loss.miner SemiHard",
    "act-fashion-c2f2 --out runs/act-fashion-c2f2 --resume",
)


@dataclass(kw_only=True)
class Options(Running):
    """Train a recipe. Any field of it can be set: --epochs 4 --loss.margin 0.3 --loss.miner SemiHard --clip 1.0."""

    recipe: Positional[str]
    """recipe name (robustdml list recipes), RobRank string such as fashion:rc2f2p:ptripletN, or recipe.json"""
    out: File = None
    """run folder; by default runs/NAME"""
    resume: bool = False
    """continue at the newest checkpoint of the run folder"""
    test: bool = False
    """evaluate on the test split afterwards"""
    data: Word = None
    """another data set: name or folder:PATH"""
    seed: Whole = None
    """of weights, order and draws; by default the recipe's (0)"""
    processes: Whole = None
    """on this machine; by default one per visible GPU, one on the CPU"""
    workers: Whole = None
    """processes that decode images ahead, 0 for none; by default as many as pay. Results do not depend on it"""
    cache: bool = False
    """decode every image once and keep them on disk (196 608 bytes per image of 256x256)"""
    track: Literal["tensorboard", "wandb"] | None = None
    """a tracker that gets the numbers of log.jsonl too"""
    dry_run: bool = False
    """print the resolved recipe, passes and memory; needs no data"""


def main(argv: list[str]) -> int:
    """Parse, train, print."""
    options, words = read(Options, argv, "train", EXAMPLES, rest=True)
    given = [(name, str(v)) for name, v in (("data", options.data), ("seed", options.seed)) if v is not None]
    settings = given + fields(words)  # a data set comes before its fields
    count = 1 if processes.started_elsewhere() else processes.wanted(options.processes, options.device)
    from robustdml.cli import training

    recipe, run = training.resolved(options.recipe, settings, options.out, resume=options.resume)
    if options.dry_run:
        return training.dry_run(recipe, count, as_json=options.json)
    if count > 1:
        return processes.spread(count, "train", argv)
    again = {"device": options.device, "processes": options.processes, "data-root": options.data_root,
             "workers": options.workers, "track": options.track}  # fmt: skip
    resume = training.resume_command(options.recipe, run, again, test=options.test, cache=options.cache)
    around = training.Around(options.workers, options.cache, options.track)
    return training.carry_out(recipe, run, options, resume, around, resuming=options.resume, test=options.test)
