"""Recall@1 that survives every attack of several benchmarks of one model, query by query.

Each file of a run (`benchmark-PROFILE.npz`: white box, black box, transfer, strong) holds its attacks on some queries;
a query of which all files know counts, and survives if no attack of any file turned its first result. Files come in the
order given; each line says what is left after it and those before. The scorecards beside them must be of one model: of
the same weights, data set, gallery and radius.

    python benchmarks/joint_worst_case.py RUN/benchmark-rob28-strict.npz RUN/benchmark-strong28.npz
"""

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np

from robustdml.scorecard import bootstrap

RECALL = "/after/recall@1"


def survivors(path: Path) -> dict[int, float]:
    """By query, 1 if recall@1 survives every attack of a file, else 0; NaN where it is not defined.

    Raises:
        ValueError: if the file holds no attack on recall@1.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no result file benchmark-PROFILE.npz ({type(error).__name__}).") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is no result file benchmark-PROFILE.npz.")
    with arrays:
        found = [arrays[name] for name in arrays.files if name.endswith(RECALL)]
        if not found:
            raise ValueError(f"{path} holds no attack that reports recall@1. Use rob28, rob28-strict or strong28.")
        return dict(zip(arrays["queries"].tolist(), np.min(found, axis=0).tolist(), strict=True))


def subject(path: Path) -> dict[str, object]:
    """Which model was attacked on what, as far as the scorecard beside a file says it.

    Raises:
        ValueError: if there is no scorecard.
    """
    card = path.with_suffix(".json")
    if not card.is_file():
        raise ValueError(f"{card} is missing: without the scorecard nobody knows which model {path.name} is about.")
    value = json.loads(card.read_text())
    threat = value.get("threat_model") or {}
    told = {
        "weights": (value.get("provenance") or {}).get("weights"),
        "radius": threat.get("eps"),
        "norm": threat.get("norm"),
    }
    return told | {key: value.get(key) for key in ("dataset", "gallery")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        each = {path: survivors(path) for path in options.files}
        subjects = {path: subject(path) for path in options.files}
    except ValueError as error:
        parser.error(str(error))
    shared = sorted(set.intersection(*(set(own) for own in each.values())))
    if not shared:
        parser.error("the files have no query in common. Benchmark with the same --queries and --seed.")
    first = subjects[options.files[0]]
    for path in options.files[1:]:
        differs = [key for key, value in subjects[path].items() if value != first[key]]
        if differs:
            parser.error(f"{path} cannot be joined with {options.files[0]}: not of the same {', '.join(differs)}.")
    left = np.ones(len(shared))
    lines = []
    for path, own in each.items():
        alone = np.array([own[query] for query in shared])
        left = np.minimum(left, alone)
        lines.append(
            {
                "file": str(path),
                "alone": float(np.nanmean(alone)),
                "left": float(np.nanmean(left)),
                "interval": bootstrap(left, options.seed),
            }
        )
    if options.json:
        print(json.dumps({"queries": len(shared), "files": lines}))
        return
    width = max(len(line["file"]) for line in lines)
    print(f"{len(shared)} queries\n{'':{width}} alone   left")
    for line in lines:
        low, high = (100 * end for end in line["interval"])
        print(f"{line['file']:{width}} {100 * line['alone']:5.1f}  {100 * line['left']:5.1f} [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main()
