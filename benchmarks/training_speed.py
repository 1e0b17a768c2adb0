"""Time of one training step of ACT, or of HM[S,g_LGA]&ICS, against its floor, interleaved in one process.

Floor = steps x (forward + gradient to the input) of the images that the inner problem moves, one forward of the batch
without gradient (what the triplets are mined on), and forward + backward with weights of the images that the loss sees:
the same network on tensors of the same shape, without distances, mining, projection, draws or optimiser. A batch of B
images is B / 2 pairs. ACT moves B images (positives and negatives) and trains on them and B / 2 clean anchors; HM moves
3 B / 2 and trains on them and B clean anchors and positives. Floor and step take turns `--repeats` times; the median of
the ratios is printed, for fp32 and for bf16 with channels last (floor in fp32). The same step with a single inner step
from a random start is timed beside it: `speedup_of_a_single_step` says how much faster that is, loading and optimiser
left out. The search takes all its steps here; recipes of HM drop triplets that have arrived, which is faster still.

    python benchmarks/training_speed.py --threads 1 --repeats 7
    python benchmarks/training_speed.py --defense hm --threads 1 --repeats 7
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.allocator import keep_freed_memory
from robustdml.defenses import AntiCollapse, Defense, Gradual, HardnessManipulation
from robustdml.draws import Draws
from robustdml.losses import Triplet
from robustdml.mining import SoftHard
from robustdml.models import C2F2
from robustdml.models.embedder import Bfloat16, Embedder, frozen
from robustdml.types import Batch


def hardness_manipulation(adversary: Adversary) -> Defense:
    """HM[S,g_LGA]&ICS."""
    return HardnessManipulation(adversary, SoftHard(), Gradual(), structure=0.5)


DEFENSES: dict[str, Callable[[Adversary], Defense]] = {"act": AntiCollapse, "hm": hardness_manipulation}
SHARES = {"act": (1.0, 0.5), "hm": (1.5, 1.0)}
"""Moved images, and clean ones with a gradient to weights, per image of the batch."""


def floor_seconds(embedder: Embedder, images: Tensor, steps: int, shares: tuple[float, float]) -> float:
    """The passes through the network alone."""
    many = torch.cat([images, images])
    moved, clean = (many[: int(share * len(images))] for share in shares)
    start = time.perf_counter()
    with frozen(embedder):
        with torch.no_grad():
            embedder(images)
        for _ in range(steps):
            x = moved.detach().requires_grad_()
            torch.autograd.grad(embedder(x).sum(), x)
    (embedder(moved).sum() + embedder(clean).sum()).backward()
    spent = time.perf_counter() - start
    embedder.zero_grad(set_to_none=True)
    return spent


def step_seconds(defense: Defense, embedder: Embedder, batch: Batch, number: int) -> float:
    """A whole step as the training loop takes it, up to the gradients; the optimiser's update is the same for all."""
    start = time.perf_counter()
    step = defense(
        embedder, Triplet(), batch, memory={}, progress=0.0, draws=Draws(0).under(number), mean=lambda value: value
    )
    step.loss.backward()
    float(step.loss.detach())
    spent = time.perf_counter() - start
    embedder.zero_grad(set_to_none=True)
    return spent


def twin(embedder: nn.Module) -> Embedder:
    """The same network with weights of its own."""
    other = C2F2(512).build((1, 28, 28))
    other.load_state_dict(embedder.state_dict())
    return other.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defense", choices=DEFENSES, default="act")
    parser.add_argument("--images", type=int, default=128, help="per batch, two of a pair")
    parser.add_argument("--steps", type=int, default=32, help="of the inner problem")
    parser.add_argument("--repeats", type=int, default=7, help="ratios per precision; the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.images < 4 or options.images % 2 or options.steps < 2:
        parser.error("needs an even number of at least 4 images, and at least 2 steps")
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line does
    torch.manual_seed(0)
    embedder = C2F2(512).build((1, 28, 28)).train()
    modes: dict[str, Embedder] = {"fp32": embedder, "bf16": Bfloat16(twin(embedder))}
    index = torch.arange(options.images)
    batch = Batch(Draws(0).uniform("pixels", index, (1, 28, 28)), index // 2 % 10, index)
    make, shares = DEFENSES[options.defense], SHARES[options.defense]
    defense = make(Adversary(Linf(77 / 255), Pgd(options.steps, 3 / 255)))
    single = make(Adversary(Linf(77 / 255), Pgd(1, 77 / 255, random_start=True)))
    floor_seconds(embedder, batch.images, 2, shares)
    for e in modes.values():
        step_seconds(make(Adversary(Linf(77 / 255), Pgd(2, 3 / 255))), e, batch, 0)
    ratios: dict[str, list[float]] = {name: [] for name in modes}
    speedups: dict[str, list[float]] = {name: [] for name in modes}
    floors = []
    for turn in range(options.repeats):
        floors.append(floor_seconds(embedder, batch.images, options.steps, shares))
        for name, e in modes.items():
            spent = step_seconds(defense, e, batch, turn)
            ratios[name].append(spent / floors[-1])
            speedups[name].append(spent / step_seconds(single, e, batch, turn))
        print(f"turn {turn + 1}: " + ", ".join(f"{n} {r[-1]:.3f} x floor" for n, r in ratios.items()), flush=True)
    result = {
        "defense": options.defense,
        "images": options.images,
        "steps": options.steps,
        "threads": options.threads,
        "floor_seconds": round(statistics.median(floors), 4),
        "median_ratio": {n: round(statistics.median(r), 3) for n, r in ratios.items()},
        "speedup_of_a_single_step": {n: round(statistics.median(r), 1) for n, r in speedups.items()},
    }
    print(json.dumps(result, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
