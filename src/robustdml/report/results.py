"""Result files and run folders, read and checked once.

Only numbers and text are read: no model, no checkpoint, no torch. A file that is damaged, or newer than this version
can read, is refused with the file, what was found, what is accepted and the next command; unknown fields are kept.
"""

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdml import __version__
from robustdml.report.run import CLEAN, AttackResult, Example, Examples, ResultError, Run, mean_score, told_apart
from robustdml.report.swipe import is_swipe, read_swipe

SCHEMA = 1
"""The newest schema of result files this version reads."""


def read_json(file: Path, next_command: str) -> dict[str, Any]:
    """One JSON object whose schema this version reads.

    Raises:
        ResultError: The file is no JSON object, is cut off, or carries a newer schema.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(file, "no such file", "a run folder or a result file", "check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultError(file, f"not valid JSON ({error})", "one complete JSON object", next_command) from error
    if not isinstance(value, dict):
        raise ResultError(file, f"a JSON {type(value).__name__}", "one JSON object", next_command)
    schema = value.get("schema", SCHEMA)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ResultError(file, f"schema {schema!r}", f"an integer from 1 to {SCHEMA}", next_command)
    if schema > SCHEMA:
        writer = _versions(value.get("provenance")).get("robustdml")
        wanted = f"robustdml>={writer}" if writer else "robustdml"
        by = f"robustdml {writer}" if writer else "a newer robustdml"
        raise ResultError(
            file,
            f"schema {schema}, written by {by}, which also reads it",
            f"schema {SCHEMA} (this is robustdml {__version__})",
            f"pip install --upgrade '{wanted}'",
        )
    return value


def read_all(paths: Iterable[Path | str]) -> list[Run]:
    """The runs behind some paths, with names that tell them apart.

    Raises:
        ResultError: as `read_runs`.
    """
    return told_apart([run for path in paths for run in read_runs(path)])


def read_runs(path: Path | str) -> list[Run]:
    """The runs behind `path`: one per profile of a run folder, or one for a scorecard, an evaluation or a swipe file.

    Raises:
        ResultError: Nothing usable is there, or a file is damaged or too new.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    value = read_json(path, f"robustdml benchmark {path.parent}")
    if is_swipe(value):
        return [read_swipe(value, path)]
    if "attacks" in value or "clean" in value or "recall@1" in value:
        run = _scored(path, value, path.stem)
        beside = path.parent
        return [_with_company(run, beside, beside.resolve().name)] if (beside / "recipe.json").exists() else [run]
    raise ResultError(
        path,
        f"an object with the keys {', '.join(sorted(value)[:6]) or '(none)'}",
        "a scorecard (`attacks`), clean scores (`clean`), a RobRank swipe file, or a run folder",
        "robustdml benchmark RUN --profile rob28",
    )


def _read_folder(folder: Path) -> list[Run]:
    everything = sorted(folder.glob("benchmark-*.json"))
    whole = [file for file in everything if not file.stem.startswith("benchmark-attack-")]
    scorecards = whole or everything  # single attacks beside a profile are read where they are named themselves
    evaluation = folder / "evaluation.json"
    if not scorecards and not evaluation.exists():
        raise ResultError(
            folder,
            "no result in this folder",
            "a folder with evaluation.json or benchmark-PROFILE.json",
            f"robustdml evaluate {folder}",
        )
    name = folder.resolve().name
    clean = read_json(evaluation, f"robustdml evaluate {folder}") if evaluation.exists() else {}
    if not scorecards:
        return [_with_company(_scored(evaluation, clean, name), folder, name)]
    runs = []
    for file in scorecards:
        card = read_json(file, f"robustdml benchmark {folder}")
        merged = {**clean, **card, **_of_all_queries(clean, card)}
        merged.setdefault("profile", file.stem.removeprefix("benchmark-"))
        runs.append(_with_company(_scored(file, merged, name), folder, name))
    return runs


def _of_all_queries(evaluation: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Clean scores of the whole test set where it was evaluated, those of the attacked queries where it was not.

    An evaluation of other weights does not count, where both files name theirs.
    """
    weights = [(value.get("provenance") or {}).get("weights") for value in (evaluation, card)]
    if not evaluation or (all(weights) and weights[0] != weights[1]):
        return {"clean": _clean_part(card), "clean_interval": card.get("clean_interval")}
    clean = {**_clean_part(card), **_clean_part(evaluation)}
    return {"clean": clean, "clean_interval": evaluation.get("clean_interval")}


def _clean_part(value: Mapping[str, Any]) -> dict[str, Any]:
    """Clean scores of a file: under `clean`, or at the top level of a bare evaluation."""
    part = value.get("clean")
    return dict(part) if isinstance(part, dict) else {key: value[key] for key in CLEAN if key in value}


def _scored(file: Path, value: dict[str, Any], name: str) -> Run:
    """A run from a scorecard or evaluation alone, checked."""
    rerun = f"robustdml benchmark {file.parent}" if "attacks" in value else f"robustdml evaluate {file.parent}"
    attacks = value.get("attacks") or {}
    if not isinstance(attacks, dict):
        raise ResultError(file, f"`attacks` is a {type(attacks).__name__}", "an object: attack name -> result", rerun)
    results = {key: _attack(file, key, entry, rerun) for key, entry in attacks.items()}
    for field, kind in (("flags", list), ("checks", dict), ("threat_model", dict), ("provenance", dict)):
        if not isinstance(value.get(field) or kind(), kind):
            raise ResultError(file, f"`{field}` is a {type(value[field]).__name__}", f"a {kind.__name__}", rerun)
    clean = {key: _number(file, f"clean.{key}", score, rerun) for key, score in _clean_part(value).items()}
    for key in CLEAN:
        if not 0 <= clean.get(key, 0.0) <= 1:
            raise ResultError(file, f"clean.{key} is {clean[key]}", "a fraction in [0, 1]", rerun)
    if attacks and not clean:
        raise ResultError(file, "robust scores without clean ones", "a scorecard with `clean`", rerun)
    ers, interval = value.get("ers"), value.get("ers_interval")
    run = Run(
        source=file.name,
        name=str(value.get("name") or name),
        dataset=described(value.get("dataset")),
        model=described(value.get("model")),
        loss=described(value.get("loss")),
        defense=described(value.get("defense")),
        distance=described(value.get("distance")),
        profile=str(value.get("profile") or ""),
        clean=clean,
        attacks=results,
        ers=None if ers is None else _number(file, "ers", ers, rerun),
        ers_interval=None if interval is None else _interval(file, "ers_interval", interval, rerun),
        ers_undefined=str(value.get("ers_undefined") or ""),
        scorecard=value,
        provenance=dict(value.get("provenance") or {}),
    )
    mean = mean_score(run.components)
    if run.ers is not None and mean is not None and abs(mean - run.ers) > 0.06:
        note = f"The file states ERS {run.ers:.1f}, but its ten components average {mean:.1f}."
        run = replace(run, notes=(*run.notes, note))
    return run


def _attack(file: Path, key: str, entry: Any, rerun: str) -> AttackResult:
    if not isinstance(entry, dict):
        raise ResultError(file, f"attacks.{key} is a {type(entry).__name__}", "an object with before and after", rerun)
    before, after = (
        _named(file, f"attacks.{key}.{side}", entry.get(side), "score", rerun) for side in ("before", "after")
    )
    components = _named(file, f"attacks.{key}.component", entry.get("component"), key, rerun)
    intervals = entry.get("interval") or {}
    if isinstance(intervals, list):
        intervals = {key: intervals}
    return AttackResult(
        before,
        after,
        components,
        {k: _interval(file, f"attacks.{key}.interval.{k}", v, rerun) for k, v in intervals.items() if v is not None},
        {k: v for k, v in entry.items() if k not in ("before", "after", "component", "interval")},
    )


def _named(file: Path, where: str, value: Any, alone: str, rerun: str) -> dict[str, float]:
    """Named numbers; a bare number is filed under `alone`, and null entries are left out."""
    if value is None:
        return {}
    pairs = value if isinstance(value, dict) else {alone: value}
    return {
        str(key): _number(file, f"{where}.{key}", number, rerun) for key, number in pairs.items() if number is not None
    }


def _number(file: Path, where: str, value: Any, rerun: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ResultError(file, f"{where} is {value!r}", "a finite number", rerun)
    return float(value)


def _interval(file: Path, where: str, value: Any, rerun: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ResultError(file, f"{where} is {value!r}", "two numbers [low, high]", rerun)
    low, high = (_number(file, where, end, rerun) for end in value)
    return low, high


def described(value: Any) -> str:
    """A component of a recipe in one or two words: its name, or its type without the module path."""
    if isinstance(value, dict):
        return str(value.get("name") or str(value.get("type") or "").replace(":", ".").rsplit(".", maxsplit=1)[-1])
    return "" if value is None else str(value)


def _with_company(run: Run, folder: Path, source: str) -> Run:
    """The run with the files beside its scorecard: recipe, provenance, log, curve, pictures, per-query numbers."""
    notes = list(run.notes)

    def optional(name: str, command: str) -> dict[str, Any] | None:
        file = folder / name
        return read_json(file, command) if file.exists() else None

    recipe = optional("recipe.json", f"robustdml train {folder / 'recipe.json'}") or {}
    recorded = optional("provenance.json", f"robustdml evaluate {folder}") or {}
    again = f"robustdml benchmark {folder} --profile {run.profile} --curve --examples 4"
    curve = optional(f"curve-{run.profile}.json", again) if run.profile else None
    if curve is not None:
        notes += _check_curve(folder / f"curve-{run.profile}.json", curve, again)
    pictures = folder / f"examples-{run.profile}.npz"
    numbers = folder / f"benchmark-{run.profile}.npz"
    if run.attacks and not numbers.exists():
        notes.append(f"{numbers.name} is missing: no paired comparison of single queries is possible for this run.")
    log, cut = _read_log(folder / "log.jsonl")
    notes += [cut] if cut else []
    return replace(
        run,
        source=source,
        name=str(run.scorecard.get("name") or recipe.get("name") or run.name),
        dataset=run.dataset or described(recipe.get("data")),
        model=run.model or described(recipe.get("model")),
        loss=run.loss or described(recipe.get("loss")),
        defense=run.defense or described(recipe.get("defense")),
        recipe=recipe,
        provenance={**recorded, **run.provenance},
        log=log,
        curve=curve,
        examples=read_examples(pictures, again) if run.profile and pictures.exists() else None,
        per_query=_read_arrays(numbers, again) if run.profile and numbers.exists() else {},
        notes=tuple(notes),
    )


def _check_curve(file: Path, curve: dict[str, Any], again: str) -> list[str]:
    eps = curve.get("eps")
    if not isinstance(eps, list) or not eps or not all(isinstance(budget, (int, float)) for budget in eps):
        raise ResultError(file, f"eps is {eps!r}", "a list of budgets", again)
    lines = {"ers": curve.get("ers"), **(curve.get("components") or {}), **(curve.get("recall@1") or {})}
    for name, line in lines.items():
        if line is not None and (not isinstance(line, list) or len(line) != len(eps)):
            raise ResultError(file, f"{name} does not have one value per budget", f"{len(eps)} values", again)
    return [f"{file.name} has {len(eps)} budgets; six or more are needed to see a curve."] if len(eps) < 6 else []


def _read_log(file: Path) -> tuple[tuple[dict[str, Any], ...], str]:
    """Records of a training log. A cut last line is what an interrupted run leaves: it is dropped and said."""
    if not file.exists():
        return (), ""
    records: list[dict[str, Any]] = []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError as error:
            if number == len(lines):
                return tuple(records), "The last line of log.jsonl is incomplete (the training was interrupted there)."
            raise ResultError(
                file,
                f"line {number} is not JSON ({error})",
                "one JSON object per line",
                f"robustdml train {file.parent} --resume",
            ) from error
        if isinstance(record, dict) and record:
            records.append(record)
    return tuple(records), ""


def _read_arrays(file: Path, again: str) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file; pickled objects are never loaded."""
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError:
        raise ResultError(file, "no such file", "an .npz file written by `robustdml benchmark`", again) from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ResultError(file, f"not a readable .npz file ({error})", "plain arrays without pickles", again) from error


def read_examples(file: Path, again: str) -> Examples:
    """Pictures of `examples-PROFILE.npz`.

    Raises:
        ResultError: The file is damaged, lacks an array, or points at rows that do not exist.
    """
    arrays = _read_arrays(file, again)
    images = arrays.get("images", np.zeros(0))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ResultError(file, f"images {images.dtype}{list(images.shape)}", "uint8 [m, h, w, 1 or 3]", again)
    try:
        names = [str(name) for name in arrays["attacks"]]
        found = Examples(
            eps=float(arrays["eps"]),
            images=images,
            image_index=arrays["image_index"].astype(np.int64),
            image_label=arrays["image_label"].astype(np.int64),
            class_names=tuple(str(name) for name in arrays["class_names"]),
            attacks={
                name: Example(
                    query=arrays[f"{name}/query"].astype(np.int64),
                    adversarial=arrays[f"{name}/adversarial"].astype(np.float32),
                    before=arrays[f"{name}/before"].astype(np.int64),
                    after=arrays[f"{name}/after"].astype(np.int64),
                    target=arrays[f"{name}/target"].astype(np.int64),
                    perturbs=str(arrays[f"{name}/perturbs"]),
                )
                for name in names
            },
        )
    except KeyError as error:
        raise ResultError(
            file, f"no array {error}", "every array named in the documentation of the file", again
        ) from error
    for name, example in found.attacks.items():
        rows = np.concatenate([example.query, example.before.ravel(), example.after.ravel(), example.target])
        if rows.size and (rows.max() >= len(images) or rows.min() < -1):
            raise ResultError(file, f"{name} points at row {rows.max()}", f"rows below {len(images)}", again)
        if not len(example.query) == len(example.before) == len(example.after) == len(example.target):
            raise ResultError(file, f"{name} has arrays of different lengths", "one row per attacked image", again)
        if example.adversarial.shape != (len(example.query), *images.shape[1:]):
            raise ResultError(
                file,
                f"{name}/adversarial {list(example.adversarial.shape)}",
                f"[e, {', '.join(map(str, images.shape[1:]))}]",
                again,
            )
    return found


def _versions(provenance: Any) -> dict[str, Any]:
    versions = provenance.get("versions") if isinstance(provenance, dict) else None
    return versions if isinstance(versions, dict) else {}
