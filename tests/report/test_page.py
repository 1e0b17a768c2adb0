import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robustdml import files
from robustdml.report.facts import both_ways
from robustdml.report.page import build_report, render
from robustdml.report.results import read_runs
from robustdml.report.run import ResultError

MakeRun = Callable[..., Path]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
MEASURE = """
document.getElementById('f').onload = event => {
  const root = event.target.contentDocument.documentElement;
  root.querySelectorAll('details').forEach(part => { part.open = true; });
  document.getElementById('answer').textContent =
    `widths ${root.scrollWidth} ${event.target.contentWindow.innerWidth} height ${root.scrollHeight}`;
};
"""
VOID = {"meta", "img", "br", "link", "input"}


class Structure(HTMLParser):
    """Collects tags and attributes, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def structure(text: str) -> Structure:
    parsed = Structure()
    parsed.feed(text)
    assert parsed.open == []
    return parsed


def flagged(make_run: MakeRun) -> Path:
    return make_run(
        "flagged",
        flags=[{"name": "zero_gradient", "message": "A black-box attack wins on 31 of 128 queries."}],
        checks={"zero_gradient": {"ok": False, "value": 0.242, "message": "31 of 128"}, "new": {"ok": True}},
    )


def test_the_page_answers_who_was_measured_and_how(plain_run: Path, robust_run: Path, tmp_path: Path) -> None:
    text = build_report([plain_run, robust_run], tmp_path / "report.html").read_text(encoding="utf-8")
    words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))
    for fact in (
        "77/255 = 0.302 (ℓ∞)",
        "32 of 3/255 = 0.0118",
        "the candidate (CA+, CA−); the query (QA+",
        "model, gallery and labels (white box)",
        "Queries 2 000",
        "robustdml train plain --seed 0",
        "torch 2.9.0",
        "18 612 000 forward passes",
        "62.5 – 64.0",
        "× 1.7",
        "not evidence of robustness",
        "RobRank README †",
        "a_field_of_tomorrow.kept",
    ):
        assert fact in words, fact


def test_the_page_is_well_formed_and_its_section_links_lead_somewhere(plain_run: Path, make_run: MakeRun) -> None:
    parsed = structure(render(read_runs(plain_run) + read_runs(flagged(make_run))))
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    assert all(attrs.get("alt") for tag, attrs in parsed.tags if tag == "img")


def test_nothing_is_fetched_and_nothing_is_scripted(plain_run: Path, robust_run: Path) -> None:
    text = render(read_runs(plain_run) + read_runs(robust_run))
    parsed = structure(text)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in parsed.tags}
    for tag, attrs in parsed.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert (attrs.get("src") or "data:").startswith("data:image/png;base64,") or "src" not in attrs
        for name in ("href", "xlink:href"):
            target = attrs.get(name) or "#"
            assert target.startswith("#") or (tag == "a" and target.startswith("https://arxiv.org/abs/"))
    assert all(target.strip("'\"").startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_hostile_names_stay_text(make_run: MakeRun) -> None:
    folder = make_run(
        "hostile",
        name=HOSTILE,
        defense=HOSTILE,
        model=HOSTILE,
        dataset=HOSTILE,
        flags=[{"name": HOSTILE, "message": HOSTILE}],
        checks={HOSTILE: {"ok": False, "value": HOSTILE, "message": HOSTILE}},
        provenance={"command": HOSTILE, "versions": {HOSTILE: HOSTILE}},
    )
    (folder / "recipe.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    text = render(read_runs(folder), title=HOSTILE)
    parsed = structure(text)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not any("onerror" in attrs for _, attrs in parsed.tags)
    assert "&lt;script&gt;" in text


def test_equal_inputs_give_equal_bytes(plain_run: Path, robust_run: Path, tmp_path: Path) -> None:
    first, second = (
        build_report([plain_run, robust_run], tmp_path / name).read_bytes() for name in ("a.html", "b.html")
    )
    assert first == second


def test_flags_are_explained_and_cost_the_bold_face(make_run: MakeRun, plain_run: Path) -> None:
    text = render(read_runs(plain_run) + read_runs(flagged(make_run)), reference=False)
    assert "Unreliable: 1 flag, 1 failed check" in text
    assert "A black-box attack wins on 31 of 128 queries." in text
    assert "a gradient attack is blind there" in text
    assert "<b>63.3</b>" not in text


def test_a_black_box_result_is_named_and_wins_no_bold_face(plain_run: Path, robust_run: Path) -> None:
    (robust,) = read_runs(robust_run)
    knowledge = {"threat_model": {"knowledge": "energies alone (black box)"}}
    text = render([*read_runs(plain_run), replace(robust, scorecard=robust.scorecard | knowledge)])
    assert "Attacker without gradients" in text
    assert "<b>63.3</b>" not in text
    assert "<b>63.3</b>" in render([*read_runs(plain_run), robust])
    better = {"clean": robust.clean | {"recall@1": 0.987}}
    assert "<b>98.7</b>" in render(
        [*read_runs(plain_run), replace(robust, scorecard=robust.scorecard | knowledge, **better)]
    )


def test_clean_scores_alone_make_a_page(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"schema": 1, "name": "only", "clean": {"recall@1": 0.9}}))
    text = render(read_runs(tmp_path))
    structure(text)
    assert "no attack was run" in text
    assert "nothing is known about attacks on this model" in text
    assert 'id="components"' not in text


def test_an_undefined_ers_is_explained(make_run: MakeRun) -> None:
    text = render(read_runs(make_run("e", ers=None, ers_interval=None, ers_undefined="Euclidean shift is unbounded")))
    assert "Euclidean shift is unbounded" in text


def test_the_number_of_pictures_is_chosen(robust_run: Path) -> None:
    runs = read_runs(robust_run)
    assert render(runs, examples=1).count('class="example"') == 4
    assert render(runs, examples=3).count('class="example"') == 12
    assert 'id="pictures"' not in render(runs, examples=0)


def test_neighbours_are_marked_by_class(robust_run: Path) -> None:
    text = render(read_runs(robust_run), examples=1)
    runs = read_runs(robust_run)
    assert runs[0].examples is not None
    label = runs[0].examples.image_label
    expected = sum(
        int(label[item] == label[example.query[0]])
        for example in runs[0].examples.attacks.values()
        for item in [*example.before[0], *example.after[0]]
    )
    assert text.count('alt="same class') == text.count('<figure class="hit">') == expected


def test_a_failed_write_leaves_the_old_page_and_no_rubbish(
    robust_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "report.html"
    build_report([robust_run], out)
    before = out.read_bytes()

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        build_report([robust_run], out)
    assert out.read_bytes() == before
    assert os.listdir(out.parent) == ["report.html"]


def test_a_bad_input_leaves_no_page(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    with pytest.raises(ResultError):
        build_report([tmp_path], out)
    with pytest.raises(ValueError, match="at least one"):
        build_report([], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("eps", "text"), [(77 / 255, "77/255 = 0.302"), (8 / 255, "8/255 = 0.0314"), (0.03, "0.03 = 7.65/255"), (0, "0")]
)
def test_budgets_are_printed_both_ways(eps: float, text: str) -> None:
    assert both_ways(eps) == text


def test_a_report_loads_neither_torch_nor_a_model(robust_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from robustdml.report.page import build_report; "
        f"build_report([{str(robust_run)!r}], {str(tmp_path / 'r.html')!r}); "
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_sideways_in_a_real_browser(
    width: int, plain_run: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    named = make_run("long", name="a-recipe-name-without-end-" * 4 + "x" * 80, defense="D" * 90)
    text = render(read_runs(plain_run) + read_runs(flagged(make_run)) + read_runs(named))
    wrapper = tmp_path / "wrapper.html"
    frame = f"<iframe id=f style='border:0;width:{width}px;height:900px' srcdoc=\"{html.escape(text)}\"></iframe>"
    wrapper.write_text(
        f"<body style='margin:0'>{frame}<p id=answer>waiting</p><script>{MEASURE}</script>", encoding="utf-8"
    )
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={max(width, 600)},1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        wrapper.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    answer = re.search(r"widths (\d+) (\d+) height (\d+)", done.stdout)
    assert answer, done.stderr[-500:]
    scroll, inner, height = map(int, answer.groups())
    assert inner == width
    assert scroll <= inner
    assert height > 3000
