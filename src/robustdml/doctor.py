"""The state of an installation: versions, devices, extras, data sets, cache."""

import importlib.util
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import robustdml
from robustdml.data import DATASETS, DataError
from robustdml.data.layout import Stored
from robustdml.data.sources import PUBLISHED, find, roots
from robustdml.serial import Json

PACKAGES = (
    "torch",
    "numpy",
    "accelerate",
    "safetensors",
    "tyro",
    "rich",
    "jaxtyping",
    "scikit-learn",
    "scipy",
    "matplotlib",
    "jinja2",
    "pillow",
)
EXTRAS = {
    "vision": ("timm", "torchvision"),
    "faiss": ("faiss",),
    "pml": ("pytorch_metric_learning",),
    "track": ("tensorboard",),
}
TESTED_TORCH = ((2, 6), (2, 14))


def examine(data_root: Path | None = None) -> Json:
    """Everything `robustdml doctor` reports.

    `problems` lists, in words, what keeps something from working; `notes` what is odd but harmless.
    """
    vision = _torchvision()
    cache = _cache(data_root)
    found: Json = {
        "robustdml": robustdml.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "extras": {
            name: all(importlib.util.find_spec(m) is not None for m in modules) for name, modules in EXTRAS.items()
        },
        "torchvision": vision,
        "datasets": {name: _dataset(name, data_root) for name in DATASETS},
        "cache": cache,
    }
    found["problems"] = _problems(found)
    found["notes"] = _notes(found)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    flags = _cpu_flags()
    return {
        "cpu": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "vector": torch.backends.cpu.get_cpu_capability(),
            "bf16": "fast (AMX)" if "amx_bf16" in flags else "supported" if "avx512_bf16" in flags else "slow",
        },
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda_bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _cpu_flags() -> set[str]:
    """What the processor can do; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        return "not installed"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a broken binary raises RuntimeError, OSError or AttributeError
        return f"does not import: {type(error).__name__}: {error}"
    return "works"


def _dataset(name: str, root: Path | None) -> dict[str, Any]:
    """Whether the files of a data set are there; their content is verified by `robustdml data NAME`."""
    spec = DATASETS[name]()
    try:
        if isinstance(spec, Stored):
            place = spec.layout.find(name, root)
        elif name in PUBLISHED:
            place = next(iter(find(name, root).values())).parent
        else:
            return {"present": True, "where": "part of scikit-learn"}
    except DataError as error:
        return {"present": False, "where": str(error).splitlines()[0]}
    return {"present": True, "where": str(place)}


def _cache(root: Path | None) -> dict[str, Any]:
    """Whether data can be put into the first place that is searched."""
    first = roots(root)[0]
    existing = next(p for p in (first, *first.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return {"path": str(first), "writable": True}
    except OSError as error:
        return {"path": str(first), "writable": False, "reason": error.strerror}


def _problems(found: Json) -> list[str]:
    problems = []
    number = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if not TESTED_TORCH[0] <= number < TESTED_TORCH[1]:
        problems.append(f"torch {torch.__version__} is outside the tested range: pip install 'torch>=2.6,<2.14'")
    problems += [f"{name} is not installed: pip install {name}" for name, v in found["packages"].items() if v is None]
    if not found["cache"]["writable"]:
        problems.append(f"{found['cache']['path']} cannot be written: set ROBUSTDML_DATA or --data-root")
    return problems


def _notes(found: Json) -> list[str]:
    if not found["torchvision"].startswith("does not"):
        return []
    return [
        f"torchvision {found['torchvision']}. Models from timm work nevertheless; to repair it, install the build "
        "that matches your torch, see pytorch.org"
    ]
