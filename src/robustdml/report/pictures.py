"""What attacks look like: the attacked image, its perturbation and its neighbours, as pictures for the page."""

from typing import Any

import numpy as np

from robustdml.report import glossary, plots
from robustdml.report.facts import both_ways
from robustdml.report.run import Example, Examples, Run, sign


def pictures(run: Run, limit: int) -> dict[str, Any]:
    """Up to `limit` attacked images of every attack of a run that has pictures."""
    found = run.examples
    assert found is not None, "the caller shows only runs with pictures"
    factor = plots.contrast_factor(found.eps)
    groups = [
        {
            "name": sign(name),
            "meaning": glossary.attack_meaning(name),
            "perturbs": example.perturbs,
            "examples": [_picture(found, example, row, factor) for row in range(min(limit, len(example.query)))],
        }
        for name, example in found.attacks.items()
    ]
    return {"label": run.label, "eps": both_ways(found.eps), "factor": f"{factor:g}", "groups": groups}


def _picture(found: Examples, example: Example, row: int, factor: float) -> dict[str, Any]:
    query = int(example.query[row])
    clean = found.images[query].astype(np.float64) / 255
    target = int(example.target[row])

    def neighbours(rows: Any) -> list[dict[str, Any]]:
        return [
            {
                "src": plots.png(found.images[item], 96),
                "hit": bool(found.image_label[item] == found.image_label[query]),
                "name": _class_name(found, item),
            }
            for item in map(int, rows)
            if item >= 0
        ]

    return {
        "name": _class_name(found, query),
        "index": int(found.image_index[query]),
        "clean": plots.png(found.images[query]),
        "noise": plots.png(plots.perturbation(clean, example.adversarial[row], factor)),
        "adversarial": plots.png(example.adversarial[row]),
        "target": {"src": plots.png(found.images[target], 96), "name": _class_name(found, target)}
        if target >= 0
        else None,
        "before": neighbours(example.before[row]),
        "after": neighbours(example.after[row]),
    }


def _class_name(found: Examples, row: int) -> str:
    label = int(found.image_label[row])
    return found.class_names[label] if 0 <= label < len(found.class_names) else f"class {label}"
