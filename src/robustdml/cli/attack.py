"""robustdml attack: one attack on a model."""

from dataclasses import dataclass
from typing import Literal

from robustdml.cli import processes
from robustdml.cli.options import File, Fraction, Measured, Whole, Word, read

EXAMPLES = (
    "runs/act-fashion-c2f2 --attack ES",
    "runs/act-fashion-c2f2 --attack CA+ --eps 8/255 --steps 32 --queries 1000",
    "runs/act-fashion-c2f2 --attack GTM-published --norm l2 --eps 0.5",
    "runs/act-fashion-c2f2 --attack SPQA- --count 10 --xi 100",
    "runs/act-fashion-c2f2 --attack QA- --search nes --queries 100",
    "runs/act-fashion-c2f2 --attack ES --surrogate runs/plain-fashion-c2f2",
    "pixels --data digits --attack CA:pm=+:W=1:eps=0.30196:alpha=0.011764:pgditer=32",
)


@dataclass(kw_only=True)
class Options(Measured):
    """One attack, as a benchmark of its own: writes benchmark-attack-NAME.json and .npz.

    Settings that depart from the default are part of the name (attack-ES-eps8), so that no result replaces another.

    Budget if none is given: that of rob28 (77/255) for grey images up to 28x28, else 8/255; 32 steps of 3/255.
    """

    attack: str
    """CA+ CA- QA+ QA- TMA ES LTM GTM GTT SPQA+ SPQA- FOA SPFOA …, a variant such as QA+-local (robustdml list attacks),
    or a RobRank string (published targets)"""
    eps: Fraction = None
    """radius, a fraction of the pixel range [0, 1]: 8/255 or 0.03"""
    steps: Whole = None
    """gradients; one takes the whole radius at once"""
    step_size: Fraction = None
    """in units of the norm; by default 3/255, at most eps (l2: 2.5 eps / steps)"""
    norm: str = "linf"
    """linf or l2"""
    schedule: Literal["eccv"] | None = None
    """eccv: steps and their size follow from eps, as in the code of ECCV 2020"""
    random_start: bool = False
    """begin at a random point of the ball"""
    count: Whole = None
    """W of CA, M of QA, SPQA, FOA and SPFOA; 1 by default, 2 for orders"""
    search: Literal["pgd", "nes"] = "pgd"
    """pgd, or the black-box search nes"""
    population: Whole = None
    """of nes: images scored per step; 100 by default"""
    xi: Word = None
    """weight of what SP attacks preserve: batch (dynamic, the default), image (dynamic, own) or a fixed number"""
    surrogate: File = None
    """run whose network is attacked in place of the target's, which is scored"""
    energy_gallery: Literal["surrogate", "target"] = "surrogate"
    """whose embeddings of the gallery a surrogate's are compared with; target is RobRank's form"""
    queries: Whole = None
    """attack a random subset of so many images; the gallery stays complete"""
    processes: Whole = None
    """on this machine; by default one per visible GPU, one on the CPU"""
    dry_run: bool = False
    """print budget, passes and memory; needs no data"""


def main(argv: list[str]) -> int:
    """Parse, attack, print."""
    options, _ = read(Options, argv, "attack", EXAMPLES)
    count = 1 if processes.started_elsewhere() else processes.wanted(options.processes, options.device)
    from robustdml.cli import measuring
    from robustdml.names import attack_profile
    from robustdml.plan import size_of

    target = measuring.target_of(options)
    profile = attack_profile(
        options.attack, size_of(target.data).shape, count=options.count, eps=options.eps,
        steps=options.steps, step_size=options.step_size, norm=options.norm, schedule=options.schedule,
        random_start=options.random_start, search=options.search, population=options.population, xi=options.xi,
    )  # fmt: skip
    profile = measuring.by_way_of(profile, options.surrogate, options.energy_gallery)
    if options.dry_run:
        return measuring.dry_run(target, profile, options, options.queries)
    if count > 1:
        return processes.spread(count, "attack", argv)
    return measuring.measure(target, profile, options, options.queries)
