"""Synthetic run folders with everything a report can show, drawn from a seed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PLAIN = {
    "CA+": 1.1,
    "CA-": 96.8,
    "QA+": 0.3,
    "QA-": 97.8,
    "TMA": 0.990,
    "ES:D": 1.604,
    "ES:R": 0.1,
    "LTM": 0.0,
    "GTM": 12.6,
    "GTT": 0.0,
}
ROBUST = {
    "CA+": 33.6,
    "CA-": 14.6,
    "QA+": 38.5,
    "QA-": 12.1,
    "TMA": 0.259,
    "ES:D": 0.541,
    "ES:R": 48.5,
    "LTM": 59.5,
    "GTM": 60.2,
    "GTT": 0.1,
}
ATTACKS = ("CA+", "CA-", "QA+", "QA-", "TMA", "ES", "LTM", "GTM", "GTT")
SCORE = {"TMA": "cosine", "LTM": "recall@1", "GTM": "recall@1", "GTT": "retain@4"}
START = {"CA+": 0.496, "CA-": 0.012, "QA+": 0.503, "QA-": 0.005, "TMA": 0.02, "GTT": 1.0}


def components(raw: dict[str, float]) -> dict[str, float]:
    """The formulas of the score, written out once more."""
    return {
        "CA+": 2 * raw["CA+"],
        "CA-": 100 - raw["CA-"],
        "QA+": 2 * raw["QA+"],
        "QA-": 100 - raw["QA-"],
        "TMA": 100 * (1 - raw["TMA"]),
        "ES:D": 100 * (2 - raw["ES:D"]) / 2,
        "ES:R": raw["ES:R"],
        "LTM": raw["LTM"],
        "GTM": raw["GTM"],
        "GTT": raw["GTT"],
    }


def scorecard(raw: dict[str, float], recall: float, **fields: Any) -> dict[str, Any]:
    parts = components(raw)
    ers = sum(parts.values()) / 10
    attacks: dict[str, Any] = {}
    for name in ATTACKS:
        if name == "ES":
            before, after = {"shift": 0.0, "recall@1": recall}, {"shift": raw["ES:D"], "recall@1": raw["ES:R"] / 100}
            component = {key: parts[key] for key in ("ES:D", "ES:R")}
        else:
            key = SCORE.get(name, "prank")
            scale = 1 if key == "cosine" else 100
            before, after, component = {key: START.get(name, recall)}, {key: raw[name] / scale}, {name: parts[name]}
        attacks[name] = {
            "before": before,
            "after": after,
            "component": component,
            "interval": {key: [value - 0.9, value + 0.9] for key, value in component.items()},
            "eps": 77 / 255,
            "step_size": 3 / 255,
            "steps": 32,
            "norm": "linf",
            "perturbs": "candidate" if name.startswith("CA") else "query",
            "units": "percentile rank 0..1",
            "seconds": 41.5,
        }
    attacks["GTM-corrected"] = {**attacks["GTM"], "component": {"GTM-corrected": parts["GTM"] - 2}, "interval": {}}
    return {
        "schema": 1,
        "profile": "rob28",
        "ers": ers,
        "ers_interval": [ers - 0.8, ers + 0.7],
        "clean": {
            "recall@1": recall,
            "recall@2": recall + 0.06,
            "map": recall - 0.08,
            "map_at_r": recall - 0.1,
            "nmi": recall - 0.1,
        },
        "attacks": attacks,
        "worst_case_recall@1": min(raw["ES:R"], raw["LTM"]) / 100,
        "queries": 2000,
        "gallery": 10000,
        "classes": 10,
        "distance": "Spherical",
        "dataset": "fashion",
        "model": "C2F2",
        "loss": "Triplet",
        "defense": "Plain",
        "threat_model": {
            "norm": "linf",
            "eps": 77 / 255,
            "steps": 32,
            "step_size": 3 / 255,
            "perturbs": "query",
            "knowledge": "model, gallery and labels (white box)",
        },
        "flags": [],
        "checks": {
            "eps_zero": {"ok": True, "value": 0.0, "message": "All scores equal the clean ones."},
            "budget": {"ok": True, "value": 0.30196, "message": "Largest change found."},
            "random_noise": {"ok": True, "value": 1.3, "message": "Noise costs 1.3 points, the attack far more."},
            "zero_gradient": {
                "ok": True,
                "value": 0.0,
                "message": "NES and Square find nothing more on 128 queries.",
            },
        },
        "cost": {"forward": 18_612_000, "backward": 18_432_000, "seconds": 412.7},
        "seed": 0,
        "provenance": {"versions": {"robustdml": "0.1.0", "torch": "2.9.0", "python": "3.11.7"}},
        "a_field_of_tomorrow": {"kept": True},
        **fields,
    }


def examples(raw: dict[str, float], seed: int = 0, channels: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    m, side = 40, 28
    label = np.arange(m) % 10
    y, x = np.mgrid[:side, :side] / side
    patterns = [np.sin((k % 5 + 2) * (x + (k // 5) * y) * 3) * np.cos((k + 1) * y * 2) for k in range(10)]
    noise = 0.06 * rng.standard_normal((m, side, side))
    images = np.clip(0.5 + 0.45 * np.stack([patterns[k] for k in label]) + noise, 0, 1)
    images = np.repeat((255 * images).astype(np.uint8)[..., None], channels, axis=3)
    arrays: dict[str, Any] = {
        "attacks": np.array(["CA+", "QA-", "ES", "GTM"]),
        "eps": np.float64(77 / 255),
        "images": images,
        "image_index": np.arange(m) * 7,
        "image_label": label,
        "class_names": np.array(CLASSES),
    }
    for name in ("CA+", "QA-", "ES", "GTM"):
        query = np.array([3, 17, 25])
        step = (
            np.sign(rng.standard_normal((3, side, side, channels)))
            * 77
            / 255
            * rng.random((3, side, side, channels)) ** 0.3
        )
        same = np.stack([np.setdiff1d(np.flatnonzero(label == label[q]), q)[:3] for q in query])
        other = rng.integers(0, m, (3, 5))
        arrays |= {
            f"{name}/query": query,
            f"{name}/adversarial": np.clip(images[query] / 255 + step, 0, 1).astype(np.float32),
            f"{name}/before": np.concatenate([same, other[:, :2]], axis=1),
            f"{name}/after": other if raw["ES:R"] < 5 else np.concatenate([same[:, :2], other[:, :3]], axis=1),
            f"{name}/target": np.full(3, -1) if name == "ES" else rng.integers(0, m, 3),
            f"{name}/perturbs": np.array("candidate" if name == "CA+" else "query"),
        }
    return arrays


def curve(raw: dict[str, float], recall: float) -> dict[str, Any]:
    eps = [0, 7 / 255, 14 / 255, 28 / 255, 42 / 255, 56 / 255, 77 / 255]
    fall = [float(np.exp(-k / (4 if raw["ES:R"] > 5 else 0.7))) for k in range(len(eps))]
    parts = components(raw)
    ers = sum(parts.values()) / 10
    return {
        "schema": 1,
        "profile": "rob28",
        "name": "x",
        "eps": eps,
        "ers": [ers + (90 - ers) * f for f in fall],
        "components": {name: [value + (90 - value) * f for f in fall] for name, value in parts.items()},
        "recall@1": {
            name: [raw[key] / 100 + (recall - raw[key] / 100) * f for f in fall]
            for name, key in (("ES", "ES:R"), ("LTM", "LTM"), ("GTM", "GTM"))
        },
        "queries": 500,
        "seed": 0,
        "steps": 32,
        "step_size_rule": "eps * 2.5 / steps",
    }


def per_query(raw: dict[str, float], size: int = 200) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {"queries": np.arange(size) * 5}
    for name in ATTACKS:
        for key in {"ES": ("shift", "recall@1")}.get(name, (SCORE.get(name, "prank"),)):
            centre = (
                raw["ES:D"] if key == "shift" else raw["TMA"] if key == "cosine" else raw.get(name, raw["ES:R"]) / 100
            )
            hit = key in ("recall@1", "retain@4")
            arrays[f"{name}/after/{key}"] = (
                (rng.random(size) < centre).astype(float) if hit else centre + 0.01 * rng.standard_normal(size)
            )
    return arrays


def write_run(folder: Path, raw: dict[str, float], recall: float, /, *, seed: int = 0, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    card = scorecard(raw, recall, **fields)
    (folder / "benchmark-rob28.json").write_text(json.dumps(card))
    (folder / "curve-rob28.json").write_text(json.dumps(curve(raw, recall)))
    np.savez(folder / "examples-rob28.npz", **examples(raw, seed))
    np.savez(folder / "benchmark-rob28.npz", **per_query(raw))
    (folder / "evaluation.json").write_text(
        json.dumps({"schema": 1, "clean": {**card["clean"], "r_precision": recall - 0.09}})
    )
    recipe = {
        "name": folder.name,
        "data": {"type": "Fashion"},
        "loss": {"type": "robustdml.losses.tuples.Triplet", "margin": 0.2},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    provenance = {
        "command": ["robustdml", "train", folder.name, "--seed", "0"],
        "seed": 0,
        "device": "2 CPU threads",
        "versions": {"robustdml": "0.1.0", "torch": "2.9.0"},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    rng = np.random.default_rng(seed)
    lines = []
    for step in range(0, 1600, 2):
        done = step / 1600
        lines.append(
            {
                "epoch": step // 200,
                "step": step,
                "loss": 0.2 * np.exp(-3 * done) + 0.02 + 0.01 * rng.standard_normal(),
                "lr": 1e-3,
                "mean_distance": 0.5 + 0.6 * done + 0.02 * rng.standard_normal(),
                "active_triplets": float(np.clip(0.9 - 0.6 * done + 0.03 * rng.standard_normal(), 0, 1)),
                "effective_rank": 4 + 8 * done + 0.3 * rng.standard_normal(),
                "seconds": 0.1,
            }
        )
        if step % 200 == 198:
            lines.append(
                {"epoch": step // 200, "step": step, "validation": {"recall@1": recall * (1 - np.exp(-4 * done - 1))}}
            )
    (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return folder


@pytest.fixture
def plain_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "plain", PLAIN, 0.876, name="plain-fashion-c2f2")


@pytest.fixture
def robust_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "robust", ROBUST, 0.787, seed=1, name="act-fashion-c2f2", defense="AntiCollapse")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Build a run folder: `make_run(folder_name, raw_scores, recall, **scorecard_fields)`."""

    def build(folder: str, /, raw: dict[str, float] = ROBUST, recall: float = 0.787, **fields: Any) -> Path:
        return write_run(tmp_path / folder, raw, recall, **fields)

    return build
