"""What a plain training step with each loss costs, as a multiple of one with Triplet: C2F2, 256 images of 28x28.

A step is the forward and backward pass of the network, timed once, and the loss with its gradient to the embeddings.

    python benchmarks/loss_speed.py --repeats 15
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.losses import LOSSES, Loss, MultiSimilarity, Pml, Triplet
from robustdml.mining import DistanceWeighted, SemiHard, SoftHard
from robustdml.models import C2F2
from robustdml.recipes.loss_names import named_loss

ROWS, DIM, CLASSES = 256, 512, 10
CASES: dict[str, Loss] = {
    **{name: cls() for name, cls in LOSSES.items() if cls is not Pml},
    "MultiSimilarity as published": MultiSimilarity(pairs="as-published"),
    "Triplet(SemiHard)": Triplet(miner=SemiHard()),
    "Triplet(SoftHard)": Triplet(miner=SoftHard()),
    "Triplet(DistanceWeighted)": Triplet(miner=DistanceWeighted()),
    "Triplet(Euclidean)": Triplet(Euclidean()),
    "pml:CircleLoss": Pml("CircleLoss", {}, Cosine()),
    "pml:ProxyAnchorLoss": Pml("ProxyAnchorLoss", {}, Cosine()),
    "pml:TripletMarginLoss": Pml("TripletMarginLoss", {}, Spherical()),
    **{name: named_loss(name) for name in ("pstripN", "pangularN", "pncaN")},
}


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after one that is not counted."""
    run()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    embedder = C2F2(DIM).build((1, 28, 28)).train()
    index = torch.arange(ROWS)
    labels = Draws(0).integers("label", index // 2, CLASSES)
    images, pull = Draws(0).uniform("image", index, (1, 28, 28)), Draws(0).normal("pull", index, (DIM,))
    z = embedder(images).detach().requires_grad_()
    network = seconds(lambda: embedder(images).backward(pull), max(3, repeats // 5))
    print(f"network: {1e3 * network:.0f} ms forward and backward")

    def step(loss: Loss) -> float:
        built = loss.build(CLASSES, DIM)
        return seconds(lambda: built(z, labels, draws=Draws(0), index=index).backward(), repeats)

    usual = step(Triplet())
    for name, loss in CASES.items():
        own = step(loss)
        print(f"{name:30s} {1e3 * own:7.2f} ms  step {(network + own) / (network + usual):5.2f} x Triplet")


if __name__ == "__main__":
    main()
