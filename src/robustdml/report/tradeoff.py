"""The trade-off between clean recall and robustness, one point per run."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustdml.report.plots import WIDTH, Plot, figure, style
from robustdml.report.published import Published, canonical
from robustdml.report.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.6


def tradeoff_plots(runs: Sequence[Run], reference: Sequence[Published] = (), *, named_runs: bool = False) -> list[Plot]:
    """Clean recall@1 against ERS and against worst-case recall@1: one point per run, published rows with their names.

    A figure holds the runs of one data set; there is nothing to trade between fewer than two points. Attacks without
    the model are left out: weak attacks are no robustness. Where no page prints a legend, `named_runs` writes the name
    of each run beside its point.
    """
    panels = (
        ("Recall@1 against ERS", "ERS", [(run.ers, run.ers_interval) for run in runs]),
        (
            "Recall@1 against worst-case recall@1",
            "worst-case recall@1, %",
            [(None if run.worst is None else 100 * run.worst, _in_percent(run.worst_interval)) for run in runs],
        ),
    )
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    return [
        plot
        for title, label, values in panels
        for dataset in datasets
        if (
            plot := _tradeoff(
                f"{title}, {dataset}" if len(datasets) > 1 else title,
                label,
                [place for place, run in enumerate(runs) if run.dataset == dataset],
                runs,
                values,
                [row for row in reference if canonical(row.dataset) == canonical(dataset)],
                named_runs=named_runs,
            )
        )
        is not None
    ]


def _tradeoff(
    title: str,
    label: str,
    places: Sequence[int],
    runs: Sequence[Run],
    values: Sequence[tuple[float | None, tuple[float, float] | None]],
    reference: Sequence[Published],
    *,
    named_runs: bool,
) -> Plot | None:
    """One panel, for the runs of one data set."""
    points = [
        (place, 100 * run.clean["recall@1"], _in_percent(run.clean_interval("recall@1")), y, span)
        for place in places
        for run, (y, span) in [(runs[place], values[place])]
        if y is not None and "recall@1" in run.clean and run.white_box
    ]
    attacked_alike = any(runs[place].scorecard.get("published_protocol", True) for place, *_ in points)
    comparable = label == "ERS" and attacked_alike
    named = [row for row in reference if row.ers is not None and "recall@1" in row.clean and comparable]
    if not points or len(points) + len(named) < 2:
        return None

    def draw(axes: "Axes") -> None:
        labels = []
        bars = []
        for row in named:
            x, y = 100 * row.clean["recall@1"], float(row.ers or 0.0)
            axes.plot(x, y, "o", color="white", markeredgecolor="#7a858f", markersize=6, zorder=1)
            labels.append((x, y, row.defense, "#59646f"))
        for place, x, x_span, y, y_span in points:
            colour, marker, _ = style(place)
            drawn = [((x_span[0], y), (x_span[1], y))] if x_span else []
            drawn += [((x, y_span[0]), (x, y_span[1]))] if y_span else []
            for (x0, y0), (x1, y1) in drawn:
                axes.plot([x0, x1], [y0, y1], color=colour, linewidth=1.4, zorder=2)
            bars += drawn
            axes.plot(x, y, marker, color=colour, markersize=8, markeredgecolor="white", zorder=3, clip_on=False)
            if named_runs:
                labels.append((x, y, runs[place].name, colour))
        shown = [x for _, x, *_ in points] + [100 * row.clean["recall@1"] for row in named]
        axes.set_xlim(max(0, 10 * math.floor(min(shown) / 10 - 0.7)), min(100, 10 * math.ceil(max(shown) / 10 + 0.2)))
        tops = [max(y, *span) if span else y for *_, y, span in points] + [float(row.ers or 0) for row in named]
        axes.set_ylim(0, min(100, 20 * math.ceil(max(tops) / 20 + 0.5)))
        axes.set_xlabel("clean recall@1, %")
        axes.set_ylabel(label)
        axes.grid(color="#dde2e7", linewidth=0.7)
        write_beside(axes, labels, bars)

    caption = "Up and to the right is better; white-box attacks alone."
    if label != "ERS":
        caption += " The worst case of a query is what ES, LTM, GTM (and stronger attacks) leave of its first result."
    profiles = sorted({runs[place].profile for place, *_ in points} - {""})
    if len(profiles) > 1:
        caption += f" The runs were attacked in different ways ({', '.join(profiles)}): compare those of one profile."
    if named:
        caption += " Hollow points are published rows of the same data set, with their defense."
    return Plot(title, figure(draw, HEIGHT, title), caption)


def write_beside(
    axes: "Axes",
    labels: Sequence[tuple[float, float, str, str]],
    bars: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> None:
    """Write each (x, y, text, colour) near its point, where it covers no other text, no point and none of the `bars`
    (pairs of ends). A thin line joins a text to its point where they are not side by side.

    Sizes are estimated, so that equal inputs give equal figures whatever fonts are installed.
    """
    left, right, bottom, top = (float(limit) for limit in (*axes.get_xlim(), *axes.get_ylim()))
    width, height, line, letter = 72 * WIDTH * 0.86, 72 * HEIGHT * 0.8, 10.0, 4.9

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - left) / (right - left) * width, (y - bottom) / (top - bottom) * height

    def covers(box: tuple[float, ...]) -> int:
        return sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes)

    def joint(px: float, py: float, box: tuple[float, ...]) -> list[tuple[float, ...]]:
        """Small boxes along the line from a point to the middle of the nearer edge of its text."""
        if box[1] < py < box[3] and min(abs(box[0] - px), abs(box[2] - px)) < 8:
            return []
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        x = min(max(px, box[0]), box[2]) if box[1] < py < box[3] else x
        y = min(max(py, box[1]), box[3])
        steps = [(px + k / 8 * (x - px), py + k / 8 * (y - py)) for k in range(2, 8)]
        return [(a - 1, b - 1, a + 1, b + 1) for a, b in steps]

    def cost(px: float, py: float, box: tuple[float, ...]) -> float:
        outside = max(0.0, -box[0], box[2] - width, -box[1], box[3] - height)
        crossed = sum(covers(piece) for piece in joint(px, py, box))
        return 300 * covers(box) + 40 * crossed + 200 * (outside > 0) + outside

    points = [place(x, y) for x, y, *_ in labels]
    ends = [(place(*low), place(*high)) for low, high in bars]
    boxes: list[tuple[float, ...]] = [(px - 4, py - 4, px + 4, py + 4) for px, py in points]
    boxes += [(x0 - 1, y0 - 1, x1 + 1, y1 + 1) for (x0, y0), (x1, y1) in ends]
    for x, y, text, colour in sorted(labels):
        px, py = place(x, y)
        size = letter * len(text)
        candidates = [
            (start, shift, (px + start, py + shift, px + start + size, py + shift + line))
            for shift in (-4.0, *(sign * far for far in (9.0, 18.0, 27.0, 36.0, 48.0, 60.0, 72.0) for sign in (1, -1)))
            for start in (-7 - size, 7.0, -size / 2, -24 - size, 24.0)
            if abs(shift) > 5 or start != -size / 2
        ]
        start, shift, box = min(
            candidates, key=lambda found: cost(px, py, found[2]) + 0.5 * abs(found[1] + 4) + 0.1 * abs(found[0])
        )
        line_to = joint(px, py, box)
        boxes += [box, *line_to]
        axes.annotate(
            text,
            (x, y),
            (start + size / 2, shift + 1.5),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            if line_to
            else None,
        )


def _in_percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (100 * interval[0], 100 * interval[1])
