"""Retrieval metrics of 10,000 x 512 embeddings against pytorch-metric-learning: equality, time and peak memory.

Each side runs in a process of its own; times alternate, medians count; memory is the peak of the process above what it
held before the metrics. Needs the extra [pml].

    python benchmarks/ranking_speed.py --repeats 3
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings

import torch


def embeddings(items: int, dim: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes on the sphere, seed 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(items) % classes
    centres = torch.randn(classes, dim, generator=generator)
    z = centres[labels] + 2.5 * torch.randn(items, dim, generator=generator)
    return torch.nn.functional.normalize(z, dim=1), labels


def ours(z: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    from robustdml.distance import Spherical
    from robustdml.metrics import retrieval_scores

    scores = retrieval_scores(Spherical(), z, labels, z, labels, itself=torch.arange(len(z)))
    means = scores.means((1,))
    return {k: means[k] for k in ("recall@1", "r_precision", "map_at_r", "map")}


def theirs(z: torch.Tensor, labels: torch.Tensor, full: bool) -> dict[str, float]:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    names = {"precision_at_1": "recall@1", "r_precision": "r_precision", "mean_average_precision_at_r": "map_at_r"}
    if full:
        names |= {"mean_average_precision": "map"}
    calculator = AccuracyCalculator(
        include=tuple(names), k=len(z) - 1 if full else None, knn_func=CustomKNN(LpDistance(normalize_embeddings=False))
    )
    found = calculator.get_accuracy(z, labels, z, labels, ref_includes_query=True)
    return {ours: found[name] for name, ours in names.items()}


SIDES = {"robustdml": ours, "pml": lambda z, y: theirs(z, y, False), "pml-with-map": lambda z, y: theirs(z, y, True)}


def measure(side: str, items: int, dim: int, classes: int) -> None:
    """One side, in this process; prints a JSON line."""
    warnings.simplefilter("ignore")
    small = embeddings(200, dim, classes)
    SIDES[side](*small)  # imports and first calls are nobody's cost
    z, labels = embeddings(items, dim, classes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scores = SIDES[side](z, labels)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "scores": scores}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--with-map", action="store_true", help="let the library compute the full mAP too (much slower)"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.items, options.dim, options.classes)
        return
    sides = ["robustdml", "pml-with-map" if options.with_map else "pml"]
    found: dict[str, list[dict]] = {s: [] for s in sides}
    for _ in range(options.repeats):
        for side in sides:
            command = [sys.executable, __file__, "--side", side, "--items", str(options.items)]
            command += ["--dim", str(options.dim), "--classes", str(options.classes)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, found[side][-1], flush=True)
    a, b = (found[s] for s in sides)
    times = [statistics.median(r["seconds"] for r in side) for side in (a, b)]
    peaks = [max(r["peak_gib"] for r in side) for side in (a, b)]
    apart = {k: abs(a[0]["scores"][k] - v) for k, v in b[0]["scores"].items()}
    result = {
        "threads": torch.get_num_threads(),
        "time_ratio": round(times[0] / times[1], 4),
        "memory_ratio": round(peaks[0] / peaks[1], 4),
        "largest_difference": max(apart.values()),
        "seconds": dict(zip(sides, times, strict=True)),
        "peak_gib": dict(zip(sides, peaks, strict=True)),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
