"""The figure of a diagnosis: how defenses change the gradients of triplets."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustdml.files import beside
from robustdml.report.plots import FIGURE_STYLE, STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "anchor": ("Gradient to the anchor", "cosine, moved against clean"),
    "positive": ("Gradient to the positive", "cosine, moved against clean"),
    "negative": ("Gradient to the negative", "cosine, moved against clean"),
    "efficiency": ("Batch efficiency", "hardness, moved − clean"),
}
BINS = 48


def write_figure(values: Mapping[str, Mapping[str, NDArray[Any]]], path: Path, *, title: str) -> None:
    """Four histograms over triplets, one colour per defense, means dashed; the suffix of `path` is the format.

    The three panels of cosines share their axis, so that their spread can be compared.

    Args:
        values: by defense, then `anchor`, `positive`, `negative` (cosines) and `efficiency`, each one number per
            triplet.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    cosines = _finite([own[key] for own in values.values() for key in own if key != "efficiency"])
    gains = _finite([own["efficiency"] for own in values.values()])
    reach = max(1e-3, float(np.abs(gains).max(initial=0.0)))
    colours = {name: STYLES[place % len(STYLES)][0] for place, name in enumerate(values)}
    with matplotlib.rc_context(FIGURE_STYLE):
        canvas: Figure = Figure(figsize=(8.6, 6.4), layout="constrained")
        FigureCanvasAgg(canvas)
        for axes, (key, (heading, label)) in zip(canvas.subplots(2, 2).flat, PANELS.items(), strict=True):
            low, high = (-reach, reach) if key == "efficiency" else (-1.0 if cosines.min(initial=0.0) < 0 else 0.0, 1.0)
            edges = np.linspace(low, high, BINS + 1).tolist()
            for name, own in values.items():
                _histogram(axes, own[key], edges, colours[name])
            axes.axvline(0, color="#98a2ad", linewidth=0.8, zorder=0)
            axes.set_xlim(low, high)
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(heading, fontsize=11, loc="left")
            axes.set_xlabel(label)
            axes.set_ylabel("share of triplets, %")
        patches = [Patch(facecolor=c + "47", edgecolor=c, linewidth=1.4, label=name) for name, c in colours.items()]
        canvas.suptitle(title, fontsize=12, x=0.01, ha="left")
        canvas.legend(
            handles=patches, loc="outside lower center", ncols=7, frameon=False, title="dashed: mean",
            title_fontsize="small", alignment="center",
        )  # fmt: skip
        plain = dict.fromkeys(("Date", "Creator")) if path.suffix == ".svg" else {"Software": None}
        with beside(path) as part:
            canvas.savefig(part, format=path.suffix.removeprefix("."), dpi=160, metadata=plain)


def _finite(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    everything = np.concatenate(arrays)
    return everything[np.isfinite(everything)]


def _histogram(axes: "Axes", v: NDArray[Any], edges: list[float], colour: str) -> None:
    """Shares in percent, filled and outlined, with the mean."""
    weights = np.full(len(v), 100 / len(v))
    axes.hist(v, bins=edges, weights=weights, color=colour, alpha=0.28, histtype="stepfilled", linewidth=0)
    axes.hist(v, bins=edges, weights=weights, color=colour, histtype="step", linewidth=1.4)
    axes.axvline(float(np.nanmean(v)), color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dde2e7", linewidth=0.7)
    axes.set_axisbelow(True)
