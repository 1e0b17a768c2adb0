import base64
import io
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from PIL import Image

from robustdml.report.plots import (
    WIDTH,
    components_plot,
    contrast_factor,
    curve_plots,
    perturbation,
    png,
    series,
    style,
    training_plots,
)
from robustdml.report.published import published
from robustdml.report.results import read_runs
from robustdml.report.run import Run
from robustdml.report.tradeoff import HEIGHT, tradeoff_plots, write_beside


def test_figures_are_well_formed_and_refer_to_nothing_outside(plain_run: Path, robust_run: Path) -> None:
    runs = read_runs(plain_run) + read_runs(robust_run)
    components = components_plot(runs)
    assert components is not None
    for plot in [components, *curve_plots(runs), *training_plots(runs)]:
        assert "http" not in plot.svg
        assert not re.search(r"<(script|style|metadata|image|!DOCTYPE)", plot.svg)
        ElementTree.fromstring(plot.svg.replace("xlink:href", "href"))


def labels(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_trade_off_shows_every_run_and_the_published_rows(plain_run: Path, robust_run: Path) -> None:
    runs = read_runs(plain_run) + read_runs(robust_run)
    score, worst = tradeoff_plots(runs, published("fashion"))
    for plot in (score, worst):
        ElementTree.fromstring(plot.svg.replace("xlink:href", "href"))
    assert {"ACT", "EST", "none", "HM[S,g_LGA]&amp;ICS"} <= set(labels(score.svg))
    assert "Hollow points" in score.caption
    assert "ACT" not in labels(worst.svg)  # no worst case is published
    bare = tradeoff_plots(runs)
    assert "ACT" not in labels(bare[0].svg)
    assert bare[1] == worst


def test_corrected_attacks_are_not_set_beside_published_rows(plain_run: Path, robust_run: Path) -> None:
    runs = read_runs(plain_run) + read_runs(robust_run)
    strict = [
        replace(run, profile="rob28-strict", scorecard=run.scorecard | {"published_protocol": False}) for run in runs
    ]
    assert "ACT" not in labels(tradeoff_plots(strict, published("fashion"))[0].svg)
    mixed = tradeoff_plots([runs[0], strict[1]], published("fashion"))[0]
    assert "ACT" in labels(mixed.svg)
    assert "compare those of one profile" in mixed.caption
    assert "compare those" not in tradeoff_plots(runs)[0].caption


def test_runs_look_different_and_may_carry_their_names(plain_run: Path, robust_run: Path) -> None:
    assert len({style(place) for place in range(36)}) == 36
    runs = read_runs(plain_run) + read_runs(robust_run)
    names = {run.name for run in runs}
    assert names <= set(labels(tradeoff_plots(runs, named_runs=True)[0].svg))
    assert not names & set(labels(tradeoff_plots(runs)[0].svg))


def test_names_of_crowded_points_cover_neither_each_other_nor_a_point() -> None:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(70, 100)
    axes.set_ylim(0, 40)
    points = [(80.8, 0.0), (81.5, 0.2), (86.0, 0.0), (87.5, 0.0), (87.6, 0.1), (87.7, 0.2), (89.0, 0.0), (99.5, 39.5)]
    write_beside(axes, [(x, y, f"defense-{place}", "black") for place, (x, y) in enumerate(points)])
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for x, y in axes.transData.transform(points):
        assert not any(box.contains(x, y) for box in boxes)
    joined = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch is not None]
    assert 0 < len(joined) < len(points)


def test_one_point_is_no_trade_off(robust_run: Path) -> None:
    assert tradeoff_plots(read_runs(robust_run)) == []
    assert tradeoff_plots([], published("fashion")) == []
    assert len(tradeoff_plots(read_runs(robust_run), published("fashion"))) == 1


@pytest.mark.parametrize("knowledge", ["energies alone (black box)", "another model, runs/x (transfer)"])
def test_attacks_without_the_model_are_no_points_of_the_trade_off(plain_run, robust_run, knowledge) -> None:
    (plain,), (robust,) = read_runs(plain_run), read_runs(robust_run)
    blind = replace(robust, scorecard=robust.scorecard | {"threat_model": {"knowledge": knowledge}})
    assert tradeoff_plots([plain, robust, blind]) == tradeoff_plots([plain, robust])
    assert tradeoff_plots([plain, blind]) == []


def test_intervals_of_the_trade_off_are_drawn(plain_run: Path, robust_run: Path) -> None:
    runs = read_runs(plain_run) + read_runs(robust_run)
    without = [replace(run, ers_interval=None) for run in runs]
    assert len(tradeoff_plots(runs)[0].svg) > len(tradeoff_plots(without)[0].svg)
    wide = [replace(run, scorecard=run.scorecard | {"worst_case_interval": [0.1, 0.4]}) for run in runs]
    assert len(tradeoff_plots(wide)[1].svg) > len(tradeoff_plots(runs)[1].svg)


def test_equal_runs_give_equal_bytes(robust_run: Path) -> None:
    first, second = (components_plot(read_runs(robust_run)) for _ in range(2))
    assert first == second


def test_every_score_against_the_budget_has_its_figure(robust_run: Path) -> None:
    titles = [plot.title for plot in curve_plots(read_runs(robust_run))]
    assert titles == ["ERS", "Recall@1 under ES, %", "Recall@1 under LTM, %", "Recall@1 under GTM, %"]


def test_gaps_in_a_curve_and_in_a_log_are_drawn_as_gaps() -> None:
    run = Run(
        source="x",
        name="x",
        curve={"eps": [0, 0.1, 0.2], "ers": [90, None, 10]},
        log=(
            {"step": 1, "loss": 1.0},
            {"step": 2, "loss": math.nan},
            {"step": 3, "loss": None},
            {"step": 4, "loss": 0.5},
        ),
    )
    assert len(curve_plots([run])) == 1
    assert len(training_plots([run])) == 1


def test_runs_without_components_curves_or_log_have_no_figures() -> None:
    run = Run(source="x", name="x")
    assert components_plot([run]) is None
    assert curve_plots([run]) == []
    assert training_plots([run]) == []


def test_a_hostile_name_stays_text(robust_run: Path) -> None:
    (run,) = read_runs(robust_run)
    plot = components_plot([replace(run, name='"><script>$x_1$')])
    assert plot is not None
    assert "<script>" not in plot.svg


def test_a_long_log_is_averaged_not_thinned() -> None:
    log = [{"step": step, "loss": float(step)} for step in range(4000)]
    x, y = series(log, "loss")
    assert len(x) == 400
    assert y.mean() == pytest.approx(1999.5)
    np.testing.assert_array_equal(x, y)


def test_validation_figures_take_the_step_of_the_record_before() -> None:
    x, y = series([{"step": 7, "loss": 1.0}, {"validation": {"recall@1": 0.4}}], "recall@1")
    assert (x.tolist(), y.tolist()) == ([7.0], [0.4])


@pytest.mark.parametrize(("eps", "factor"), [(8 / 255, 16), (77 / 255, 1.7), (1.0, 0.5), (0.0, 1)])
def test_the_amplification_maps_the_budget_to_full_contrast(eps: float, factor: float) -> None:
    assert contrast_factor(eps) == factor
    shown = perturbation(np.full((1, 1, 1), 0.5), np.full((1, 1, 1), 0.5 + eps), factor)
    assert shown[0, 0, 0] == pytest.approx(1.0 if eps else 0.5, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_keep_their_pixels_and_large_ones_shrink(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, channels), dtype=np.uint8)
    for image in (pixels, (pixels / 255).astype(np.float32)):
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(png(image).split(",")[1]))))
        np.testing.assert_array_equal(decoded.reshape(pixels.shape), pixels)
    large = png(np.zeros((400, 200, channels), np.uint8), longest=96)
    assert Image.open(io.BytesIO(base64.b64decode(large.split(",")[1]))).size == (48, 96)
