"""What a TARGET on the command line stands for: a metric, the images to measure it on, and where results go."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from robustdml.clean import write_evaluation
from robustdml.data import DataError, Dataset, ImageSet, dataset
from robustdml.data.cache import cached
from robustdml.deep_metric import DeepMetric, trained_metric
from robustdml.distance import DISTANCES, Distance
from robustdml.foreign import robrank_weights, spelled
from robustdml.models import Pixels
from robustdml.models.backbones import timm_embedder, wrap
from robustdml.models.embedder import Embedder
from robustdml.plugins import from_module, installed
from robustdml.recipe import Recipe
from robustdml.recipes import recipe as recipe_of
from robustdml.recipes import recipes
from robustdml.runs import WEIGHTS, Checkpoint, build, checkpoint, described, in_precision, load_weights, read_weights
from robustdml.serial import Json, nearest

PUBLISHED_SUFFIXES = (".bin", ".pkl", ".pt", ".pth")


@dataclass(frozen=True, eq=False)
class Target:
    """A model ready to be measured.

    Attributes:
        out: where results go unless another folder is named: the run folder itself, else runs/NAME.
        about: what result files say about it (name, model, loss, defense).
    """

    metric: DeepMetric
    data: ImageSet
    out: Path
    about: Json


@dataclass(frozen=True, eq=False)
class Plan:
    """A target before its data and weights are loaded."""

    text: str
    data: Dataset
    distance: Distance
    out: Path
    about: Json
    recipe: Recipe | None = None
    saved: Checkpoint | None = None
    weights: Path | None = None
    precision: str = "fp32"

    def load(self, *, data_root: Path | None = None, device: torch.device | None = None, cache: bool = False) -> Target:
        """Data and weights; with `cache` the images are decoded once and kept on disk.

        Raises:
            DataError: if data or weights are missing, damaged or not what they claim to be.
        """
        data = self.data.load(data_root)
        self._check_shape(data)
        if cache:
            with PartialState().main_process_first():
                data = cached(data, data_root)
        embedder = self.embedder(data.shape).to(device or torch.device("cpu"))
        running = in_precision(embedder, self.precision)
        metric = trained_metric(running, self.recipe.loss) if self.recipe else DeepMetric(running, self.distance)
        return Target(metric, data, self.out, self.about)

    def _check_shape(self, data: ImageSet) -> None:
        trained = self.recipe.data.shape if self.recipe else None
        if trained is not None and data.shape[0] != trained[0]:
            raise ValueError(
                f"{self.text} was trained on images of {_sides(trained)}, {data.name} has {_sides(data.shape)}. "
                "Measure it on images of its own kind."
            )

    def embedder(self, shape: tuple[int, int, int], *, trained: bool = True) -> Embedder:
        """The network for images of this shape; without weights of its own unless `trained`."""
        if self.recipe is not None:
            embedder = build(self.recipe, shape).eval()
            file = self.weights or (self.saved.folder / WEIGHTS if self.saved else None)
            if trained and file is not None:
                robrank = file.suffix == ".ckpt"
                tensors = robrank_weights(file, self.recipe, embedder) if robrank else read_weights(file)
                load_weights(embedder, tensors, file, self.recipe)
            return embedder
        if self.text == "pixels":
            return Pixels().build(shape).eval()
        kind, _, name = self.text.partition(":")
        if kind == "timm":
            return timm_embedder(name, shape, pretrained=trained).eval()
        return _from_module(self.text, shape)


def plan(
    text: str,
    *,
    data: str | None = None,
    distance: str | None = None,
    recipe: str | None = None,
    precision: str | None = None,
) -> Plan:
    """What `text` stands for: a run or checkpoint folder, a weight file with `recipe`, or a bare model with `data`.

    Weight files are safetensors, and the checkpoints of RobRank, of which only tensors are read.

    Bare models are `pixels`, `timm:NAME` and `module:callable`; they are ranked with `distance`, Spherical by default.

    Raises:
        DataError: for a folder or file that is missing or not a checkpoint.
        ValueError: for an impossible combination or an unknown name.
    """
    path = Path(text)
    is_run = path.is_dir() and (text != "pixels" or (path / "recipe.json").exists())  # results of pixels may lie there
    is_file = path.suffix in (".safetensors", ".ckpt")
    if recipe is not None and not is_file:
        kind = "brings its own recipe" if is_run else "has none"
        raise ValueError(f"--recipe says what a .safetensors or .ckpt file is; {text} {kind}. Leave --recipe out.")
    if distance is not None and (is_run or is_file):
        raise ValueError(
            f"--distance says how a bare model is ranked; {text} is ranked as it was trained. Leave --distance out."
        )
    if is_run:
        saved = checkpoint(path)
        out = (
            path if (path / "recipe.json").exists() and path.parent.name != "checkpoints" else _named(saved.recipe.name)
        )
        return _of_recipe(text, saved.recipe, data, out, precision, saved=saved)
    if path.suffix == ".safetensors":
        if recipe is None:
            raise ValueError(
                f"{text} holds weights only. Say what they are with --recipe: a recipe name, a RobRank string, or the "
                "recipe.json of their run."
            )
        if not path.exists():
            raise DataError(f"{path}: no such file. Check the path.")
        return _of_recipe(text, recipe_of(recipe), data, _named(path.stem), precision, weights=path)
    if path.suffix == ".ckpt":
        if not path.exists():
            raise DataError(f"{path}: no such file. Check the path.")
        if recipe is None:
            raise ValueError(_unexplained(text, spelled(path)))
        return _of_recipe(text, recipe_of(recipe), data, _named(path.stem), precision, weights=path)
    if path.suffix in PUBLISHED_SUFFIXES:
        raise DataError(_foreign(path))
    if text != "pixels" and ":" not in text:
        raise DataError(_missing(text))
    if data is None:
        raise ValueError(f"{text} has no data set of its own. Give one, e.g. --data digits or --data folder:photos.")
    return Plan(
        text,
        dataset(data),
        distance_named("Spherical" if distance is None else distance),
        _named(f"{text}-{data}"),
        {"name": text, "model": "Pixels" if text == "pixels" else text, "loss": "", "defense": ""},
        precision=precision or "fp32",
    )


def _of_recipe(
    text: str,
    recipe: Recipe,
    data: str | None,
    out: Path,
    precision: str | None,
    *,
    saved: Checkpoint | None = None,
    weights: Path | None = None,
) -> Plan:
    chosen = recipe.precision if precision is None else precision
    images = recipe.data if data is None else dataset(data)
    return Plan(text, images, recipe.loss.distance, out, about(recipe), recipe, saved, weights, chosen)


def about(recipe: Recipe) -> Json:
    """What result files say about a trained model; the data set is the one it is measured on."""
    return {key: value for key, value in described(recipe).items() if key != "dataset"}


def evaluate_run(
    run: Path,
    *,
    data_root: Path | None = None,
    device: torch.device | None = None,
    cache: bool = False,
    write: bool = True,
) -> Json:
    """Clean scores of a finished run on its test split, written to its evaluation.json."""
    planned = plan(str(run))
    target = planned.load(data_root=data_root, device=device, cache=cache)
    seed = planned.recipe.seed if planned.recipe else 0
    return write_evaluation(target.metric, target.data, run, seed=seed, about=target.about, write=write)


def distance_named(name: str) -> Distance:
    """A distance by the name of its class.

    Raises:
        ValueError: if there is none.
    """
    known = {**DISTANCES, **installed("distances")}
    if name not in known:
        raise ValueError(f"unknown distance {name!r}. {nearest(name, list(known))}")
    return known[name]()


def device_named(name: str | None) -> torch.device:
    """The device of this process: the one named, else a GPU if there is one.

    Raises:
        ValueError: if it is not there, or cannot decide ranks.
    """
    if name is not None:
        try:
            kind = torch.device(name).type
        except RuntimeError as error:
            raise ValueError(f"--device must be cpu, cuda, or cuda:0 and so on, got {name!r}.") from error
        if kind == "mps":
            raise ValueError("--device mps: ranks are decided in float64, which MPS does not have. Use --device cpu.")
        if not {"cpu": True, "cuda": torch.cuda.is_available()}.get(kind, False):
            raise ValueError(f"--device {name}: this machine has no such device. See: robustdml doctor")
    return PartialState(cpu=name == "cpu" or not torch.cuda.is_available()).device


def _sides(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _named(name: str) -> Path:
    return Path("runs") / re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip("-.")


def _from_module(text: str, shape: tuple[int, int, int]) -> Embedder:
    """What `module:callable` returns, or the module itself if it is a network already."""
    maker = from_module(text)
    if not isinstance(maker, torch.nn.Module) and _wants_arguments(maker):
        raise ValueError(
            f"{text} is called without arguments and returns the model, but it wants some. If it embeds images itself, "
            f"name a function that returns it: def model(): return {getattr(maker, '__name__', 'embed')}"
        )
    try:
        made = maker if isinstance(maker, torch.nn.Module) else maker()
    except Exception as error:  # code of the user, which may fail in any way
        raise ValueError(f"{text} failed when it was called: {type(error).__name__}: {error}") from error
    if not callable(made):
        raise ValueError(f"{text} returned {type(made).__name__}, expected a torch.nn.Module or a function.")
    return wrap(made, shape)


def _wants_arguments(maker: Callable[..., object]) -> bool:
    try:
        given = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have none
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in variable for p in given)


def _foreign(path: Path) -> str:
    if not path.exists():
        return f"{path}: no such file. Check the path."
    return (
        f"{path}: published and other PyTorch checkpoints ({', '.join(PUBLISHED_SUFFIXES)}) are not supported yet. "
        "They are pickles, which can run code when loaded. Where you trust the file, convert its tensors: "
        "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors'), and give that file "
        "with --recipe."
    )


def _unexplained(text: str, hint: str | None) -> str:
    asked = (
        f"{text}: a checkpoint of RobRank holds weights and not what they are. Say it with --recipe DATASET:MODEL:LOSS"
    )
    if hint is None:
        return f"{asked}, e.g. --recipe fashion:rc2f2p:ptripletN."
    return f"{asked}. Its folder spells {hint}; if that is what it is: --recipe {hint}"


def _missing(text: str) -> str:
    if text in recipes():
        return f"{text} is a recipe, not a trained model. Train it first: robustdml train {text}"
    siblings = [str(p) for p in Path(text).parent.glob("*") if p.is_dir()] if Path(text).parent.is_dir() else []
    near = f" {nearest(text, siblings[:20])}" if siblings else ""
    return (
        f"{text}: no such folder.{near} TARGET is a run folder, a checkpoint folder, a .safetensors or .ckpt "
        "file with --recipe, or with --data: pixels, timm:NAME, module:callable."
    )
