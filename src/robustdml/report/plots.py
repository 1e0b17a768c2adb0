"""Figures as inline SVG and pictures as PNG data URIs: equal inputs give equal bytes.

Figures carry no run names. Every run has one colour and one marker on the whole page (`STYLES`), and the page prints
the legend beside the figures, where long names can wrap. Figures are narrow, so that a phone shows their text at full
size.
"""

import base64
import io
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustdml.report.run import COMPONENTS, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = (
    ("#0b5fa5", "o", "●"),
    ("#c44601", "s", "■"),
    ("#00795c", "^", "▲"),
    ("#8e3b8a", "D", "◆"),
    ("#6b5b00", "v", "▼"),
    ("#444b54", "P", "✚"),
)
"""Colour, matplotlib marker, the same marker as text; distinct without colour vision. Runs from the seventh on have the
colours again with other markers."""
WIDTH = 4.8
"""Inches, at 72 units per inch: about the width of a phone in CSS pixels."""
MAX_POINTS = 400
FIGURE_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robustdml",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.color": "#1c232b",
    "axes.labelcolor": "#4a5561",
    "axes.edgecolor": "#98a2ad",
    "axes.linewidth": 0.8,
    "xtick.color": "#4a5561",
    "ytick.color": "#4a5561",
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Plot:
    """One figure: inline SVG without fixed size, what it shows, and a caption."""

    title: str
    svg: str
    caption: str = ""


def components_plot(runs: Sequence[Run]) -> Plot | None:
    """The ten ERS components of every run as dots on a common 0…100 scale, with intervals where known."""
    shown = [(place, run) for place, run in enumerate(runs) if run.components]
    if not shown:
        return None
    values = [value for _, run in shown for value in run.components.values()]
    step = 0.16 if len(shown) < 4 else 0.62 / len(shown)

    def draw(axes: "Axes") -> None:
        for row, name in enumerate(COMPONENTS):
            axes.axhspan(row - 0.5, row + 0.5, color="#f3f5f7" if row % 2 == 0 else "white", zorder=0, linewidth=0)
            points = [run.components[name] for _, run in shown if name in run.components]
            if len(points) > 1:
                axes.plot([min(points), max(points)], [row, row], color="#c9d0d8", linewidth=2.5, zorder=1)
        for line, (place, run) in enumerate(shown):
            colour, marker, _ = style(place)
            shift = (line - (len(shown) - 1) / 2) * step
            for row, name in enumerate(COMPONENTS):
                if name in run.intervals:
                    axes.plot(run.intervals[name], [row + shift] * 2, color=colour, linewidth=1.6, zorder=2)
            x = [run.components[name] for name in COMPONENTS if name in run.components]
            y = [row + shift for row, name in enumerate(COMPONENTS) if name in run.components]
            axes.plot(x, y, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.8, zorder=3)
        axes.set_yticks(range(len(COMPONENTS)), [name.replace("-", "−") for name in COMPONENTS])
        axes.set_ylim(len(COMPONENTS) - 0.5, -0.5)
        axes.set_xlim(min(-3.0, min(values) - 3), max(103.0, max(values) + 3))
        axes.set_xlabel("component score (100 = the attack has no effect)")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#dde2e7", linewidth=0.7)

    height = 0.7 + len(COMPONENTS) * max(0.4, 0.14 * len(shown))
    svg = figure(draw, height, "ERS components of " + ", ".join(run.label for _, run in shown))
    return Plot("The ten components of ERS", svg)


def curve_plots(runs: Sequence[Run]) -> list[Plot]:
    """ERS and recall@1 under attack against the budget, one figure per score."""
    curves = [(place, run.curve) for place, run in enumerate(runs) if run.curve]
    panels: dict[str, list[tuple[int, list[float], list[float]]]] = {}
    for place, curve in curves:
        x = [255.0 * eps for eps in curve["eps"]]
        for title, line in (
            ("ERS", curve.get("ers")),
            *((f"Recall@1 under {name}, %", line) for name, line in (curve.get("recall@1") or {}).items()),
        ):
            if line and any(value is not None for value in line):
                scale = 1.0 if title == "ERS" else 100.0
                panels.setdefault(title, []).append((place, x, [scale * number(value) for value in line]))

    def draw(axes: "Axes", lines: Sequence[tuple[int, list[float], list[float]]]) -> None:
        for place, x, y in lines:
            colour, marker, _ = style(place)
            axes.plot(
                x, y, color=colour, marker=marker, markersize=5.5, linewidth=1.8, markeredgecolor="white", clip_on=False
            )
        top = max([100.0, *(value for _, _, y in lines for value in y if math.isfinite(value))])
        low = min([0.0, *(value for _, _, y in lines for value in y if math.isfinite(value))])
        axes.set_ylim(low, top)
        axes.set_xlim(left=0)
        axes.set_xlabel("budget ε, in 1/255 of the pixel range")
        axes.grid(color="#dde2e7", linewidth=0.7)

    return [
        Plot(title, figure(lambda axes, lines=lines: draw(axes, lines), 2.7, f"{title} against the budget"))
        for title, lines in panels.items()
    ]


def training_plots(runs: Sequence[Run]) -> list[Plot]:
    """Loss, validation recall@1 and the collapse monitors over the training steps, one figure each."""
    wanted = {
        "loss": ("Training loss", "", 1.0),
        "recall@1": ("Validation recall@1, %", "", 100.0),
        "mean_distance": ("Mean distance in the batch", "Near zero, the embedding has collapsed to one point.", 1.0),
        "active_triplets": ("Share of active triplets", "Near zero, the loss has nothing left to teach.", 1.0),
        "effective_rank": ("Effective rank of the embedding", "Near one, all images lie on one line.", 1.0),
    }
    plots = []
    for key, (title, caption, scale) in wanted.items():
        lines = [(place, *series(run.log, key)) for place, run in enumerate(runs)]
        lines = [(place, x, scale * y) for place, x, y in lines if np.isfinite(y).any()]
        if not lines:
            continue

        def draw(axes: "Axes", lines: Any = lines, key: str = key) -> None:
            for place, x, y in lines:
                colour, marker, _ = style(place)
                few = len(x) <= 25
                axes.plot(
                    x,
                    y,
                    color=colour,
                    linewidth=1.6,
                    marker=marker if few else None,
                    markersize=5,
                    markeredgecolor="white",
                )
            if key != "loss":
                axes.set_ylim(bottom=0)
            axes.set_xlabel("training step")
            axes.grid(color="#dde2e7", linewidth=0.7)

        plots.append(Plot(title, figure(draw, 2.4, f"{title} over training"), caption))
    return plots


def series(log: Iterable[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values [n] of one logged number; `recall@1` is looked up among the validation figures.

    A long log is averaged in blocks to at most 400 points.
    """
    x, y, last = [], [], 0.0
    for record in log:
        last = number(record.get("step", last))
        source = record.get("validation") or {} if key == "recall@1" else record
        if key in source:
            x.append(last)
            y.append(number(source[key]))
    if len(x) <= MAX_POINTS:
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    blocks = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([np.mean(np.take(x, rows)) for rows in blocks]), np.array(
        [np.mean(np.take(y, rows)) for rows in blocks]
    )


def style(place: int) -> tuple[str, str, str]:
    """Colour, marker and marker text of the run at `place`."""
    colour, _, _ = STYLES[place % len(STYLES)]
    _, marker, text = STYLES[(place + place // len(STYLES)) % len(STYLES)]
    return colour, marker, text


def number(value: Any) -> float:
    """A plotted value; what is no number is a gap."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def figure(draw: Any, height: float, description: str) -> str:
    """An SVG for inclusion in a page: scales with its container, fetches nothing, names no date and no program."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(FIGURE_STYLE):
        canvas: Figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        canvas.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return inline(out.getvalue(), description)


def inline(svg: str, description: str) -> str:
    """A stand-alone SVG document made fit for a page: no prologue, no links, no fixed fonts, ids of its own."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="[^"]+"', body)
    assert view is not None, "matplotlib writes a viewBox"
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", body)
    prefix = f"f{zlib.crc32(description.encode()):08x}"
    body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    body = re.sub(r"font: ([^;\"']*?px) [^;\"]*", r"font: \1 system-ui, sans-serif", body)
    return f'<svg {view[0]} role="img" aria-label="{escape(description)}">{body.strip()}'


def png(pixels: NDArray[Any], longest: int = 192) -> str:
    """A PNG data URI of an image [h w 1 or 3], float in [0, 1] or uint8; larger ones are reduced."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest))
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def contrast_factor(eps: float | int) -> float:
    """Amplification that shows a change of `eps` as full contrast around mid grey: 0.5 / eps, rounded for print."""
    if eps <= 0:
        return 1.0
    factor = 0.5 / eps
    return float(round(factor)) if factor >= 10 else round(factor, 1)


def perturbation(clean: NDArray[np.float64], adversarial: NDArray[Any], factor: float | int) -> NDArray[np.float64]:
    """The difference [h w c] multiplied by `factor` around mid grey, in [0, 1]: grey is unchanged."""
    return np.clip(0.5 + factor * (adversarial - clean), 0, 1)
