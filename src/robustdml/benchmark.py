"""A benchmark: all attacks of a profile on a data set, resumable piece by piece, and its scorecard."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from jaxtyping import Int
from torch import Tensor

from robustdml import audit
from robustdml.adversary import Adversary, Linf, Pgd, forwards_of
from robustdml.attacks import RetrievalSystem, Scene, Surrogate
from robustdml.attacks.attack import check_one_space
from robustdml.audit import Check
from robustdml.data.images import ImageSet
from robustdml.deep_metric import DeepMetric
from robustdml.draws import Draws
from robustdml.evaluate import Evaluation, device_of, evaluate_embeddings, images_on, ranked
from robustdml.files import write_json, write_with
from robustdml.interruption import Interrupted, stop_signals
from robustdml.models.embedder import Embedder, in_float32
from robustdml.profile import Measurement, Profile, for_data, profile_to_json
from robustdml.runs import checkpoint, now, provenance
from robustdml.scorecard import scorecard
from robustdml.serial import Json, to_json
from robustdml.types import RunReference

_RANKED = {"gallery": "images", "classes": "the classes that it scores"}


@dataclass(frozen=True, eq=False)
class Stage:
    """A model and a gallery, ready for attacks: embedded once, shared by everything that is measured.

    Attributes:
        rows: data set indices of the queries that are attacked, in ascending order.
        z: their clean embeddings.
        itself: their own rows in the gallery, `None` if they are not in it.
        surrogates: the same queries and gallery as other networks see them, for transfer attacks.
    """

    metric: DeepMetric
    data: ImageSet
    system: RetrievalSystem
    rows: Int[Tensor, "q"]
    z: Tensor
    itself: Int[Tensor, "q"] | None
    seed: int
    surrogates: Mapping[RunReference, "Stage"] = field(default_factory=dict)
    _seen: dict[RunReference, tuple[slice, Surrogate]] = field(default_factory=dict, repr=False)

    def block(self, places: slice) -> tuple[Tensor, Scene, Int[Tensor, "b"]]:
        """Images, scene and counters of some of the queries."""
        images = images_on(self.data, self.rows[places], self.z.device)
        return images, self.scene(places), self.rows[places].to(self.z.device)

    def scene(self, places: slice) -> Scene:
        """The scene of some of the queries."""
        labels = self.data.labels[self.rows[places]].to(self.z.device)
        itself = None if self.itself is None else self.itself[places]
        return self.system.scene(self.z[places], labels, itself)

    def surrogate(self, reference: RunReference | None, places: slice) -> Surrogate | None:
        """What a transfer attack on some of the queries sees; `None` for an attack without a surrogate.

        That of the last places is kept: all attacks of a profile ask for it in turn.
        """
        if reference is None:
            return None
        kept = self._seen.get(reference)
        if kept is None or kept[0] != places:
            other = self.surrogates[reference]
            kept = self._seen[reference] = places, Surrogate(other.metric, other.scene(places))
        return kept[1]

    def only(self, places: Int[Tensor, "m"]) -> "Stage":
        """The same with some of the queries."""
        z = places.to(self.z.device)
        itself = None if self.itself is None else self.itself[z]
        others = {reference: other.only(places) for reference, other in self.surrogates.items()}
        return Stage(self.metric, self.data, self.system, self.rows[places], self.z[z], itself, self.seed, others)

    def evaluate(self) -> Evaluation:
        """Clean scores of the same queries in the same gallery."""
        labels = self.data.labels[self.rows].to(self.z.device)
        return evaluate_embeddings(self.metric, self.system.gallery, self.z, labels, self.itself, seed=self.seed)


def surrogates_of(profile: Profile, metric: DeepMetric, data: ImageSet) -> dict[RunReference, DeepMetric]:
    """The networks that the transfer attacks of a profile work on, loaded and checked against the attacked one.

    Raises:
        DataError: if a run is missing or damaged.
        ValueError: for embeddings of another size where the two are to be compared.
    """
    found: dict[RunReference, DeepMetric] = {}
    for m in profile.measurements:
        if m.surrogate is not None:
            if m.surrogate not in found:
                saved = checkpoint(Path(m.surrogate.path))
                found[m.surrogate] = profile.metric(saved.metric(data.shape, device_of(metric)))
            theirs, ours = _RANKED[found[m.surrogate].ranks], _RANKED[metric.ranks]
            if theirs != ours:
                raise ValueError(
                    f"the surrogate {m.surrogate.path} ranks {theirs}, the attacked model {ours}. Use a surrogate "
                    "of the same task."
                )
            if m.energy_gallery == "target":
                check_one_space(m.surrogate, found[m.surrogate].embedder.dim, metric.embedder.dim)
    return found


def stage(
    metric: DeepMetric,
    data: ImageSet,
    *,
    seed: int = 0,
    queries: int | None = None,
    surrogates: Mapping[RunReference, DeepMetric] | None = None,
) -> Stage:
    """Embed the gallery and choose the queries: all of them, or a random subset that depends on the seed alone.

    Args:
        surrogates: networks of transfer attacks, which embed the same images.

    Raises:
        ValueError: for an empty split, or a number of queries outside 1 … all.
    """
    everything = data.split.query
    if len(everything) == 0 or (metric.ranks == "gallery" and len(data.split.gallery) < 2):
        raise ValueError(
            f"{data.name}: the test split has {len(everything)} queries and {len(data.split.gallery)} gallery items."
        )
    if queries is not None and not 1 <= queries <= len(everything):
        raise ValueError(f"queries must be 1 … {len(everything)} for {data.name}, got {queries}.")
    order = Draws(seed, "queries").bits("subset", everything).argsort()
    rows = everything[order[: queries or len(order)]].sort().values
    gallery, clean, itself = ranked(metric, data, rows)
    others = {
        reference: stage(surrogate, data, seed=seed, queries=queries)
        for reference, surrogate in (surrogates or {}).items()
    }
    return Stage(metric, data, RetrievalSystem(metric.distance, gallery), rows, clean, itself, seed, others)


@dataclass
class Cost:
    """Images that went through the network, and how many of them with a gradient to the pixels."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted(*embedders: Embedder) -> Iterator[Cost]:
    """Counts the passes of some embedders together."""
    cost = Cost()

    def count(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        cost.forward += len(inputs[0])
        cost.backward += len(inputs[0]) * torch.is_grad_enabled()

    handles = [in_float32(e).register_forward_pre_hook(count) for e in embedders]  # whichever way it is called
    try:
        yield cost
    finally:
        for handle in handles:
            handle.remove()


def measure(
    stage: Stage,
    measurement: Measurement,
    places: slice,
    *,
    prepared: tuple[Tensor, Scene, Tensor] | None = None,
    checked: bool = True,
) -> tuple[dict[str, np.ndarray], list[Check]]:
    """One attack on one block of queries: arrays `index`, `aims`, `before/NAME`, `after/NAME`, `after_8bit/NAME`, cost.

    The checks that cost forward passes are made on the first block, unless `checked` is off.
    """
    began = time.perf_counter()
    images, scene, index = prepared or stage.block(places)
    draws = Draws(stage.seed, "attack").under(measurement.stream or measurement.name)
    surrogate = stage.surrogate(measurement.surrogate, places)
    networks = {stage.metric.embedder, *([surrogate.metric.embedder] if surrogate else [])}
    with counted(*networks) as cost:
        outcome = measurement.attack(stage.metric, scene, images, draws=draws, index=index, surrogate=surrogate)
    ball = measurement.adversary.ball
    checks = [
        audit.budget_kept(measurement.name, ball, images, outcome.images),
        audit.finite_embeddings(measurement.name, outcome),
    ]
    stored = audit.in_8_bit(outcome.images, ball, images)
    in_8_bit = outcome.after
    if float((stored - outcome.images).abs().max()) > 1e-6:
        in_8_bit = audit.score_again(measurement.attack, stage.metric, scene, outcome, stored)
    arrays = {"index": index, "aims": outcome.aims}
    for when, scores in (("before", outcome.before), ("after", outcome.after), ("after_8bit", in_8_bit)):
        arrays |= {f"{when}/{name}": values.double() for name, values in scores.items()}
    found = {name: values.cpu().numpy() for name, values in arrays.items()}
    if places.start == 0 and checked:
        again = audit.score_again(measurement.attack, stage.metric, scene, outcome, outcome.images)
        checks.append(audit.rescored(measurement.name, outcome.after, again))
        where = (measurement.name, measurement.attack, stage.metric, scene, images, draws, index)
        if measurement.adversary.search.gradients > 0 and ball.eps > 0:
            checks.append(audit.first_gradients(*where, surrogate))
        checks.append(audit.zero_budget(*where))
    found["cost"] = np.array([cost.forward, cost.backward, time.perf_counter() - began])
    return found, checks


def benchmark(
    metric: DeepMetric,
    data: ImageSet,
    profile: Profile,
    out: Path,
    *,
    seed: int = 0,
    queries: int | None = None,
    about: Json | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Json:
    """Attack with every measurement of a profile and write `benchmark-PROFILE.json` and `.npz` into `out`.

    Finished pieces are kept in `out/units` until the scorecard is written, so that a benchmark that was stopped
    continues where it was. Under several processes each takes some blocks; all need the same `out`.

    Args:
        queries: how many of the query images to attack; all by default. The gallery is always complete.
        about: what else the scorecard should say (name, defense, loss, model).
        progress: called with pieces done, pieces in all, and what is being done.

    Returns:
        The scorecard.

    Raises:
        ValueError: for embeddings that cannot be ranked, pixels outside [0, 1], images of a size that the profile is
            not meant for, or a surrogate that does not fit.
        Interrupted: after SIGINT or SIGTERM, with all finished pieces saved.
    """
    profile.check_images(data.shape)
    profile = for_data(profile, data.name)
    metric = profile.metric(metric)
    state = PartialState(cpu=device_of(metric).type == "cpu")
    began = time.perf_counter()
    made_with = provenance(seed, device_of(metric))
    weights = audit.weights_digest(metric.embedder)
    was_training = metric.embedder.training
    surrogates = surrogates_of(profile, metric, data)
    ready = stage(metric, data, seed=seed, queries=queries, surrogates=surrogates)
    foreign = {reference.path: audit.weights_digest(s.embedder) for reference, s in surrogates.items()}
    units = out / "units" / _digest(ready, weights, profile, {**made_with, "surrogates": foreign})
    blocks = [slice(i, min(i + profile.batch, len(ready.rows))) for i in range(0, len(ready.rows), profile.batch)]
    total = len(blocks) * len(profile.measurements)
    done = 0
    with stop_signals() as stopped:
        for number in range(state.process_index, len(blocks), state.num_processes):
            prepared = None
            for measurement in profile.measurements:
                file = units / f"{number:05d}-{profile.measurements.index(measurement):02d}.npz"
                if not file.exists():
                    prepared = prepared or ready.block(blocks[number])
                    progress(done, total, measurement.name)
                    unit, made = measure(ready, measurement, blocks[number], prepared=prepared)
                    unit["checks"] = np.array(json.dumps([c.as_json() for c in made]))
                    write_npz(file, unit)
                done += state.num_processes
                if stopped():
                    raise Interrupted("the same command continues where it stopped")
    progress(total, total, "scorecard")
    state.wait_for_everyone()
    path = out / f"benchmark-{profile.name}.json"
    if state.is_main_process:
        evaluation = ready.evaluate()
        checks = _model_checks(ready, evaluation, weights)
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for place, measurement in enumerate(profile.measurements):
            arrays[measurement.name], own = _gathered(units, place, len(blocks))
            checks += own
        card = scorecard(profile, arrays, evaluation, checks, metric, data, seed)
        card |= about or {}
        card["cost"] |= {
            "seconds": round(time.perf_counter() - began, 2),
            "seconds_floor": _floor_seconds(ready, profile),
        }
        card["model_was_in_training_mode"] = was_training
        card["provenance"] = made_with | {"end": now(), "data": data.fingerprint(), "weights": weights}
        card["provenance"] |= {"surrogates": foreign} if foreign else {}
        write_npz(out / f"benchmark-{profile.name}.npz", _per_query(arrays))
        write_json(path, card)
        shutil.rmtree(units, ignore_errors=True)
        with suppress(OSError):  # another benchmark of this run is still at work there
            units.parent.rmdir()
    state.wait_for_everyone()
    return json.loads(path.read_text(encoding="utf-8"))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays completely or not at all."""

    def save(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes names for its options

    write_with(path, save)


def _digest(ready: Stage, weights: str, profile: Profile, made_with: Json) -> str:
    """Names the folder of the pieces of one benchmark, so that pieces of another are never taken for its own."""
    what = [weights, repr(ready.metric.embedder), to_json(ready.metric.distance), ready.data.fingerprint()]
    what += [profile_to_json(profile), ready.seed, ready.rows.tolist(), made_with["robustdml"], made_with["device"]]
    what += [made_with["surrogates"]]
    if ready.z.device.type == "cpu":  # elsewhere embeddings need not repeat to the bit
        what.append(hashlib.sha256(ready.z.contiguous().numpy().tobytes()).hexdigest())
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _gathered(units: Path, measurement: int, blocks: int) -> tuple[dict[str, np.ndarray], list[Check]]:
    """All blocks of one measurement, concatenated; their checks."""
    parts: list[dict[str, np.ndarray]] = []
    checks: list[Check] = []
    for number in range(blocks):
        with np.load(units / f"{number:05d}-{measurement:02d}.npz") as archive:
            part = {name: archive[name] for name in archive.files}
        checks += [Check(**c) for c in json.loads(str(part.pop("checks")))]
        parts.append(part)
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0] if name != "cost"}
    joined["cost"] = np.sum([p["cost"] for p in parts], axis=0)
    return joined, checks


def _per_query(arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The content of the scorecard's npz: queries, and every number of every attack per query."""
    first = next(iter(arrays.values()))
    found = {"queries": first["index"]}
    for attack, own in arrays.items():
        found |= {f"{attack}/{name}": values for name, values in own.items() if name not in ("index", "cost")}
    return found


def _model_checks(ready: Stage, evaluation: Evaluation, weights: str) -> list[Check]:
    images, scene, _ = ready.block(slice(0, 64))
    embedder = ready.metric.embedder
    labels = ready.system.gallery.labels
    chance = float((labels.bincount().double() / len(labels)).square().sum())
    return [
        audit.evaluation_mode(embedder),
        audit.deterministic(ready.metric, images),
        audit.alone_or_together(ready.metric, images, scene.clean),
        audit.collapse(evaluation.embedding, evaluation.scores["recall@1"], chance),
        audit.saturation(ready.metric, ready.z if ready.metric.ranks == "classes" else ready.system.gallery.z),
        audit.weights_kept(weights, audit.weights_digest(embedder)),
    ]


def _floor_seconds(ready: Stage, profile: Profile) -> float:
    """What forwards and input gradients alone would have cost: time of one block, extrapolated (median of three)."""
    images, *_ = ready.block(slice(0, profile.batch))
    runner = Adversary(Linf(0.0), Pgd(1, 0.0))
    times = []
    for _ in range(3):
        _wait_for(images.device)
        start = time.perf_counter()
        runner(
            ready.metric.embedder,
            images,
            lambda z, unit, step: z.sum(dim=1),
            draws=Draws(0),
            index=torch.arange(len(images)),
        )
        _wait_for(images.device)
        middle = time.perf_counter()
        ready.metric.embed(images)
        _wait_for(images.device)
        times.append((middle - start, time.perf_counter() - middle))
    gradient, forward = np.median(np.array(times), axis=0) / len(images)
    gradients = sum(m.adversary.search.gradients for m in profile.measurements)
    forwards = sum(2 + forwards_of(m.adversary.search) for m in profile.measurements)
    return round(float((gradients * gradient + forwards * forward) * len(ready.rows)), 2)


def _wait_for(device: torch.device) -> None:
    """A GPU works behind the back of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
