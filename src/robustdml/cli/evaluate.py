"""robustdml evaluate: clean scores of a model."""

from dataclasses import dataclass

from robustdml.cli import show, terminal
from robustdml.cli.options import Measured, read

EXAMPLES = (
    "runs/act-fashion-c2f2",
    "pixels --data digits --distance Cosine",
    "timm:resnet18 --data folder:photos",
    "mymodels:embedder --data folder:photos --json",
    "model.safetensors --recipe fashion:rc2f2p:ptripletN",
    "logs_fashion-rc2f2p-ptripletN/last.ckpt --recipe fashion:rc2f2p:ptripletN",
)


@dataclass(kw_only=True)
class Options(Measured):
    """Clean retrieval scores on the test split, written to evaluation.json."""


def main(argv: list[str]) -> int:
    """Parse, evaluate, print."""
    options, _ = read(Options, argv, "evaluate", EXAMPLES)
    from robustdml.clean import remarks, write_evaluation
    from robustdml.targets import device_named, plan

    planned = plan(options.target, data=options.data, distance=options.distance, recipe=options.recipe)
    target = planned.load(data_root=options.data_root, device=device_named(options.device), cache=options.cache)
    out = options.out or target.out
    value = write_evaluation(
        target.metric, target.data, out, seed=options.seed, about=target.about, write=terminal.is_speaker()
    )
    file = out / "evaluation.json"
    terminal.document(value) if options.json else terminal.lines(show.evaluation(value, remarks(value), file))
    return 0
