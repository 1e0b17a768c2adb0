"""timm and torchvision, the optional extra `vision`."""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch


def import_timm() -> ModuleType:
    """timm, with a working torchvision.

    A torchvision from the package index beside a CPU-only torch does not import: its compiled file wants CUDA
    libraries, so that the operators `nms` and `qnms` are never defined, and timm fails with it. On exactly that error
    torchvision is imported again with the two operators declared; declaring them where the real library loads would
    abort.

    Raises:
        ImportError: with the command that installs the extra.
    """
    return _imported("timm")


def import_torchvision_models() -> ModuleType:
    """torchvision.models, made to work in the same way.

    Raises:
        ImportError: with the command that installs the extra.
    """
    return _imported("torchvision.models")


def _imported(name: str) -> ModuleType:
    try:
        return _import(name)
    except ImportError as error:
        raise ImportError(
            f"models from timm and torchvision need the extra 'vision' ({error}). Install it with: "
            "pip install 'robustdml[vision]'"
        ) from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for loaded in [n for n in sys.modules if n.split(".")[0] in ("torchvision", "timm")]:
        del sys.modules[loaded]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    return importlib.import_module(name)


_KEPT: list[Any] = []
"""Operators vanish with the library object that defined them."""
