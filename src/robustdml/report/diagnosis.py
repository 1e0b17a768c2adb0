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
    "efficiency": ("Batch efficiency", "hardness of the moved − of the clean triplet"),
}
BINS = 48


def write_figure(values: Mapping[str, Mapping[str, NDArray[Any]]], path: Path, *, title: str) -> None:
    """Four histograms over triplets, one colour per defense, means as lines; the suffix of `path` is the format.

    Args:
        values: by defense, then `anchor`, `positive`, `negative` (cosines) and `efficiency`, each one number per
            triplet.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(FIGURE_STYLE):
        canvas: Figure = Figure(figsize=(8.6, 6.2), layout="constrained")
        FigureCanvasAgg(canvas)
        for axes, (key, (heading, label)) in zip(canvas.subplots(2, 2).flat, PANELS.items(), strict=True):
            _panel(axes, {name: own[key] for name, own in values.items()}, cosine=key != "efficiency")
            axes.set_title(heading, fontsize=11, loc="left")
            axes.set_xlabel(label)
            axes.set_ylabel("share of triplets, %")
        handles, names = canvas.axes[0].get_legend_handles_labels()
        canvas.suptitle(title, fontsize=12, x=0.01, ha="left")
        canvas.legend(handles, names, loc="outside upper right", ncols=min(4, len(names)), frameon=False)
        plain = dict.fromkeys(("Date", "Creator")) if path.suffix == ".svg" else {"Software": None}
        with beside(path) as part:
            canvas.savefig(part, format=path.suffix.removeprefix("."), dpi=160, metadata=plain)


def _panel(axes: "Axes", values: Mapping[str, NDArray[Any]], *, cosine: bool) -> None:
    everything = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    reach = max(1e-3, float(np.abs(everything).max())) if everything.size else 1.0
    low, high = (min(float(everything.min(initial=1.0)), 0.0), 1.0) if cosine else (-reach, reach)
    for (name, v), (colour, _, _) in zip(values.items(), (STYLES * 2)[: len(values)], strict=True):
        axes.hist(
            v, bins=np.linspace(low, high, BINS + 1).tolist(), weights=np.full(len(v), 100 / len(v)), color=colour,
            alpha=0.28, histtype="stepfilled", linewidth=0,
        )  # fmt: skip
        axes.hist(
            v, bins=np.linspace(low, high, BINS + 1).tolist(), weights=np.full(len(v), 100 / len(v)), color=colour,
            histtype="step", linewidth=1.4, label=name,
        )  # fmt: skip
        axes.axvline(float(np.nanmean(v)), color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.axvline(0, color="#98a2ad", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dde2e7", linewidth=0.7)
    axes.set_axisbelow(True)
