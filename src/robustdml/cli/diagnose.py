"""robustdml diagnose: how defenses change the gradients of triplets."""

from dataclasses import dataclass
from typing import Literal

from robustdml.cli import show, terminal
from robustdml.cli.options import Fraction, Measured, Whole, read

EXAMPLES = (
    "runs/plain-fashion-c2f2",
    "runs/plain-fashion-c2f2 --defenses EST REST ACT AMD --triplets 4096",
    "runs/act-fashion-c2f2 --miner SoftHard --eps 8/255 --steps 8 --step-size 1/255",
    "pixels --data digits --normalisation as-published",
)


@dataclass(kw_only=True)
class Options(Measured):
    """Misleading gradients: the same triplets of training images clean and as defenses move them, nothing trained.

    Writes diagnosis.json, .npz (every triplet), .png and .svg. Defenses are called as in the papers: EST REST ACT AMD
    RAMD TBC ACAP HM. Budget if none is given: the published one of training, 77/255 with 32 steps of 3/255 for grey
    images up to 28x28, else 8/255 with 32 steps of 1/255.
    """

    defenses: tuple[str, ...] = ("EST", "ACT")
    """whose inner problems to compare"""
    triplets: int = 1024
    """how many, one per pair"""
    pairs: int = 128
    """per batch"""
    miner: str = "Random"
    """chooses the triplets on clean embeddings"""
    normalisation: Literal["per-row", "as-published"] = "per-row"
    """of gradients: each by its own norm, or by that of the whole batch"""
    eps: Fraction = None
    """radius (l-infinity), a fraction of the pixel range [0, 1]: 8/255 or 0.03"""
    steps: Whole = None
    """gradients of the inner problem; one takes the whole radius at once"""
    step_size: Fraction = None
    """a fraction of the pixel range"""


def main(argv: list[str]) -> int:
    """Parse, diagnose, print."""
    options, _ = read(Options, argv, "diagnose", EXAMPLES)
    from robustdml.cli.measuring import target_of
    from robustdml.diagnosis import Diagnosis, defenses_named, miner_named, write_diagnosis
    from robustdml.plan import size_of
    from robustdml.recipes.robrank import training_adversary
    from robustdml.targets import device_named

    planned = target_of(options)
    adversary = training_adversary(size_of(planned.data).shape, options.eps, options.steps, options.step_size)
    diagnosis = Diagnosis(
        defenses_named(options.defenses, adversary), miner_named(options.miner), options.triplets, options.pairs,
        options.normalisation,
    )  # fmt: skip
    target = planned.load(data_root=options.data_root, device=device_named(options.device), cache=options.cache)
    out = options.out or target.out
    with terminal.Progress(options.quiet) as progress:
        value = write_diagnosis(
            target.metric, target.data, diagnosis, out, seed=options.seed, about=target.about, progress=progress
        )
    terminal.document(value) if options.json else terminal.lines(show.diagnosis(value, out))
    return 0
