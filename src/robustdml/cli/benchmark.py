"""robustdml benchmark: a profile of attacks on a model."""

from dataclasses import dataclass
from typing import Literal

from robustdml.cli import processes
from robustdml.cli.options import File, Measured, Whole, read

EXAMPLES = (
    "runs/act-fashion-c2f2 --profile rob28",
    "runs/act-fashion-c2f2 --profile rob28 --queries 1000 --curve --examples 4",
    "runs/act-fashion-c2f2 --profile rob28-strict --strict",
    "timm:resnet18 --data folder:photos --profile rob224 --dry-run",
    "runs/act-fashion-c2f2 --profile mine.json --processes 2",
    "runs/act-fashion-c2f2 --profile rob28 --search nes --queries 100",
    "runs/act-fashion-c2f2 --profile rob28 --surrogate runs/plain-fashion-c2f2",
)


@dataclass(kw_only=True)
class Options(Measured):
    """Attack with every attack of a profile; writes benchmark-PROFILE.json (ERS) and .npz (every query).

    Finished pieces are kept in OUT/units: the same command continues a benchmark that was stopped.
    """

    profile: str = "rob28"
    """rob28 (grey, up to 28x28), rob32, rob224, each also as …-strict; strong28, strong32, strong224 (recall@1 attacked
    again and again); pami28, pami224, eccv28, eccv224, qccurve28, cvpr; for classifiers and hybrids class28, class32,
    class224; a JSON file; or module:callable"""
    search: Literal["pgd", "nes"] = "pgd"
    """nes makes every attack of the profile a black-box one with as many steps"""
    population: Whole = None
    """of nes: images scored per step; 100 by default"""
    surrogate: File = None
    """run whose network is attacked in place of the target's, which is scored"""
    energy_gallery: Literal["surrogate", "target"] = "surrogate"
    """whose embeddings of the gallery a surrogate's are compared with; target is RobRank's form"""
    queries: Whole = None
    """attack a random subset of so many queries; the gallery stays complete"""
    curve: bool = False
    """also score seven budgets, for the curves of the report"""
    examples: int = 0
    """also keep so many attacked images, for the pictures of the report"""
    strict: bool = False
    """exit with 3 if a self-check flags the result as unreliable"""
    precision: Literal["fp32", "bf16"] | None = None
    """of the network; by default as trained"""
    processes: Whole = None
    """on this machine; by default one per visible GPU, one on the CPU"""
    dry_run: bool = False
    """print attacks, passes and memory; needs no data"""


def main(argv: list[str]) -> int:
    """Parse, attack, print."""
    options, _ = read(Options, argv, "benchmark", EXAMPLES)
    count = 1 if processes.started_elsewhere() else processes.wanted(options.processes, options.device)
    from robustdml.cli import measuring
    from robustdml.names import profile_named, searched

    target = measuring.target_of(options, options.precision)
    profile = searched(profile_named(options.profile), options.search, options.population)
    profile = measuring.by_way_of(profile, options.surrogate, options.energy_gallery)
    if options.dry_run:
        return measuring.dry_run(target, profile, options, options.queries)
    if count > 1:
        return processes.spread(count, "benchmark", argv)
    return measuring.measure(
        target, profile, options, options.queries, curve=options.curve, examples=options.examples, strict=options.strict
    )
