"""How much NMI depends on the initialisation of k-means: ten seeds of k-means++ and of random points.

python benchmarks/nmi_spread.py runs/plain-mnist-c2f2
"""

import argparse
import statistics
from pathlib import Path

import torch
from sklearn.cluster import KMeans

from robustdml.evaluate import embed_all
from robustdml.metrics import nmi
from robustdml.runs import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    found = checkpoint(options.run)
    data = found.recipe.data.load(options.data_root)
    z = embed_all(found.metric(data.shape, torch.device("cpu")), data, data.split.gallery)
    unit = torch.nn.functional.normalize(z, dim=1).numpy()
    labels = data.labels[data.split.gallery]
    classes = int(labels.unique().numel())
    for init in ("k-means++", "random"):
        scores = []
        for seed in range(10):
            fitted = KMeans(classes, init=init, n_init=1, max_iter=25, random_state=seed).fit(unit)
            scores.append(100 * nmi(labels, torch.from_numpy(fitted.labels_).long()))
        print(f"{init}: NMI {min(scores):.1f} … {max(scores):.1f}, median {statistics.median(scores):.1f}")


if __name__ == "__main__":
    main()
