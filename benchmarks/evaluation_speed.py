"""Retrieval metrics of a test split as large as Stanford Online Products, against the bare products of its embeddings.

60,502 x 512 random unit vectors in 11,316 classes: recall@1, 10, 100 and mAP@R, beside the same float32 products in
blocks with nothing done to them. Both take turns in one process; the median ratio and the peak memory are printed.

    python benchmarks/evaluation_speed.py --repeats 3
"""

import argparse
import json
import resource
import statistics
import time

import torch

from robustdml.allocator import keep_freed_memory
from robustdml.distance import Spherical
from robustdml.metrics import retrieval_scores

BLOCK = 256


def bare_seconds(z: torch.Tensor, queries: int) -> float:
    """Products of the queries with everything, block by block."""
    start = time.perf_counter()
    for first in range(0, queries, BLOCK):
        z[first : min(first + BLOCK, queries)] @ z.T
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=60_502)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=11_316)
    parser.add_argument("--queries", type=int, help="fewer queries against all items")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    z = torch.randn(options.items, options.dim, generator=torch.Generator().manual_seed(0))
    z = torch.nn.functional.normalize(z, dim=1)
    labels = torch.arange(options.items) % options.classes
    queries = options.queries or options.items
    rows = torch.arange(queries)
    ratios, found = [], {}
    for _ in range(options.repeats):
        bare = bare_seconds(z, queries)
        start = time.perf_counter()
        scores = retrieval_scores(Spherical(), z[rows], labels[rows], z, labels, itself=rows)
        found = scores.means((1, 10, 100))
        ours = time.perf_counter() - start
        ratios.append(ours / bare)
        print(f"products {bare:.1f} s, metrics {ours:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    result = {
        "threads": torch.get_num_threads(),
        "items": options.items,
        "queries": queries,
        "median_ratio": round(statistics.median(ratios), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "scores": found,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
