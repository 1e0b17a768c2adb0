"""Time of attacks against their floor, interleaved in one process.

Floor of an attack = gradients x (forward + gradient to the input) + 2 forwards of the same network in fp32 on the same
batch; of a black-box attack its forwards in batches of the same size, of images as noisy as those of a population, on
which pooling takes longer. Both take turns `--repeats` times; the median
ratio is printed, for fp32 and for bf16 with channels last. A black-box attack's rate is one over its ratio.

    python benchmarks/attack_speed.py --repeats 7
    python benchmarks/attack_speed.py --attack SPQA+ --count 10 --attack CA+ --precision fp32
    python benchmarks/attack_speed.py --attack ES --attack QA- --attack GTT --search nes --steps 2 --queries 16
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from robustdml.adversary import Adversary, forwards_of
from robustdml.adversary.nes import ROWS
from robustdml.allocator import keep_freed_memory
from robustdml.benchmark import measure, stage
from robustdml.data.errors import DataError
from robustdml.data.idx import Fashion
from robustdml.data.images import ImageSet, Pixels, Split
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Spherical
from robustdml.draws import Draws
from robustdml.models import C2F2
from robustdml.models.embedder import Bfloat16, Embedder, frozen
from robustdml.names import ATTACKS, attack_profile, searched
from robustdml.profile import PROFILES, Profile
from robustdml.runs import checkpoint


def stand_in(items: int) -> ImageSet:
    """Random images, where Fashion-MNIST is not at hand: times do not depend on what they show."""
    rows = torch.arange(items)
    pixels = (Draws(0).uniform("pixels", rows, (1, 28, 28)) * 255).to(torch.uint8)
    return ImageSet("random", Pixels(pixels), rows % 10, Split(rows, rows, rows), tuple("0123456789"))


def floor_seconds(embedder: torch.nn.Module, images: torch.Tensor, adversary: Adversary) -> float:
    """gradients x (forward + input gradient) + forwards + 2 forwards of the batch, fp32."""
    search, ball = adversary.search, adversary.ball
    many = images.repeat(-(-ROWS // len(images)), 1, 1, 1)[:ROWS]
    many = ball.project(many + ball.clip(2 * ball.eps * torch.randn_like(many)), many)
    forwards = forwards_of(search) * len(images)
    start = time.perf_counter()
    with frozen(embedder):
        for _ in range(search.gradients):
            x = images.detach().requires_grad_()
            torch.autograd.grad(embedder(x).sum(), x)
        with torch.no_grad():
            for done in range(0, forwards, ROWS):
                embedder(many[: forwards - done])
            for _ in range(2):
                embedder(images)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="rob28")
    parser.add_argument("--attack", action="append", default=[], help="single attacks instead of a profile; repeatable")
    parser.add_argument("--count", type=int, help="number of targets of attacks that have one")
    parser.add_argument("--search", choices=("pgd", "nes"), default="pgd")
    parser.add_argument("--steps", type=int, help="instead of the 32 of the profile")
    parser.add_argument("--queries", type=int, help="attacked images, instead of the profile's batch")
    parser.add_argument("--precision", choices=("fp32", "bf16", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=7, help="ratios per precision; the median counts")
    parser.add_argument("--run", type=Path, help="run folder with a C2F2; without it a freshly initialised one")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as the command line does; else both sides wait for fresh pages, one now, the other then
    try:
        data = Fashion().load(options.data_root)
    except DataError as error:
        print(f"{error}\nusing random images instead")
        data = stand_in(10_000)
    if options.run:
        embedder = checkpoint(options.run).metric(data.shape, torch.device("cpu")).embedder
    else:
        torch.manual_seed(0)
        embedder = C2F2(512).build(data.shape)
    embedder.eval()
    profile = wanted(options, data.shape)
    measured = [m for m in profile.measurements if m.name != "GTM-corrected"]
    batch = options.queries or profile.batch
    modes: dict[str, Embedder] = {"fp32": embedder, "bf16": Bfloat16(_copy(embedder, data.shape))}
    modes = {n: e for n, e in modes.items() if options.precision in (n, "both")}
    stages = {n: stage(DeepMetric(e, Spherical()), data, queries=batch * 2) for n, e in modes.items()}
    places = slice(0, batch)
    images = next(iter(stages.values())).block(places)[0]
    adversaries = [m.adversary for m in measured]
    ratios: dict[str, list[float]] = {n: [] for n in modes}
    each: dict[str, dict[str, list[float]]] = {n: {m.name: [] for m in measured} for n in modes}
    for n in modes:  # warm up
        measure(stages[n], measured[0], places, checked=False)
    for turn in range(options.repeats):
        floor = [floor_seconds(embedder, images, a) for a in adversaries]
        for n in modes:
            start = time.perf_counter()
            prepared = stages[n].block(places)
            total = time.perf_counter() - start
            for m, own in zip(measured, floor, strict=True):
                start = time.perf_counter()
                measure(stages[n], m, places, prepared=prepared, checked=False)
                spent = time.perf_counter() - start
                each[n][m.name].append(spent / own)
                total += spent
            ratios[n].append(total / sum(floor))
        print(f"turn {turn + 1}: " + ", ".join(f"{n} {r[-1]:.3f} x floor" for n, r in ratios.items()), flush=True)
    result = {
        "profile": profile.name,
        "threads": options.threads,
        "gallery": len(data.split.gallery),
        "batch": batch,
        "median_ratio": {n: round(statistics.median(r), 3) for n, r in ratios.items()},
        "each": {n: {m: round(statistics.median(v), 3) for m, v in own.items()} for n, own in each.items()},
    }
    print(json.dumps(result, indent=None if options.json else 1))


def wanted(options: argparse.Namespace, shape: tuple[int, int, int]) -> Profile:
    """The profile, or one of the single attacks that are named."""
    profile = PROFILES[options.profile]
    if options.attack:
        counts = [options.count if ATTACKS[name].count else None for name in options.attack]
        found = [attack_profile(n, shape, count=c).measurements for n, c in zip(options.attack, counts, strict=True)]
        profile = Profile("attacks", tuple(m for own in found for m in own))
    if options.steps is not None:
        attacks = [replace(m, adversary=_with_steps(m.adversary, options.steps)) for m in profile.measurements]
        profile = replace(profile, measurements=tuple(attacks))
    return searched(profile, options.search)


def _with_steps(adversary: Adversary, steps: int) -> Adversary:
    return replace(adversary, search=replace(adversary.search, steps=steps))


def _copy(embedder: torch.nn.Module, shape: tuple[int, int, int]) -> torch.nn.Module:
    twin = C2F2(512).build(shape)
    twin.load_state_dict(embedder.state_dict())
    return twin.eval()


if __name__ == "__main__":
    main()
