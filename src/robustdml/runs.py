"""Run folders: recipe, provenance, log and checkpoints; loading what was saved, from wherever it was moved to."""

import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import robustdml
from robustdml.command import COMMAND
from robustdml.data.errors import DataError
from robustdml.deep_metric import DeepMetric, trained_metric
from robustdml.draws import own_generators
from robustdml.files import OutputError, write_json, write_text, write_with
from robustdml.models.embedder import Bfloat16, Embedder, fill
from robustdml.recipe import NOUNS, Recipe, recipe_from_json, recipe_to_json
from robustdml.serial import Json

WEIGHTS = "model.safetensors"
STATE = "state.pt"


def now() -> str:
    """UTC time in ISO form."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def provenance(seed: int, device: torch.device) -> Json:
    """What a result was made with: versions, command, machine, commit; the caller adds data and times."""
    return {
        "robustdml": robustdml.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": COMMAND.get(),
        "seed": seed,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "commit": _commit(),
        "start": now(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _commit() -> str | None:
    """The commit of a source checkout; `None` for an installed package."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def described(recipe: Recipe) -> Json:
    """What a scorecard says about the model it measured."""
    return {
        "name": recipe.name,
        "dataset": recipe.data.name,
        "model": called(recipe.model),
        "loss": called(recipe.loss),
        "defense": called(recipe.defense),
        "note": recipe.note,
    }


def called(component: Any) -> str:
    """A component in a word: the name it carries, else its class; with the losses and defenses it is made of."""
    kinds = tuple(cls for noun in ("losses", "defenses", "penalties") for cls in NOUNS[noun].values())
    inner = [v for f in fields(component) if isinstance(v := getattr(component, f.name), kinds)]
    name = str(getattr(component, "name", type(component).__name__))
    return f"{name}({', '.join(map(called, inner))})" if inner else name


def build(recipe: Recipe, shape: tuple[int, int, int]) -> Embedder:
    """A freshly initialised embedder, the same for every equal seed; the global generator is left as it was."""
    with own_generators(recipe.seed):
        return recipe.model.build(shape)


def in_precision(embedder: Embedder, precision: str) -> Embedder:
    """The embedder as it is run: wrapped for bf16, itself for fp32."""
    return Bfloat16(embedder) if precision == "bf16" else embedder


def save_weights(path: Path, embedder: Embedder, loss: object) -> None:
    """Weights of the embedder, and those of the loss under "loss."."""
    tensors = {name: t.detach().contiguous().cpu() for name, t in embedder.state_dict().items()}
    if isinstance(loss, nn.Module):
        tensors |= {f"loss.{name}": t.detach().contiguous().cpu() for name, t in loss.state_dict().items()}

    def save(part: Path) -> None:
        try:
            save_file(tensors, part, metadata={"robustdml": robustdml.__version__})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error

    write_with(path, save)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        DataError: if it is missing, a pickle, or damaged.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. A checkpoint folder holds {WEIGHTS} and recipe.json.")
    with path.open("rb") as file:
        head = file.read(9)
    # The length of a safetensors header may begin like a pickle (640 does); its ninth byte is a brace in any case.
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05") and head[8:] != b"{":
        raise DataError(
            f"{path}: this is a PyTorch pickle, which can run code when loaded, and not a safetensors file. Convert it "
            "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a complete safetensors file ({error}). Copy it again, or remove its "
            "checkpoint folder and train into another --out."
        ) from error


def load_weights(embedder: Embedder, tensors: dict[str, Tensor], where: Path, recipe: Recipe) -> None:
    """Put tensors into an embedder, strictly.

    Raises:
        DataError: if names or shapes differ, or a weight is NaN or infinite.
    """
    own = embedder.state_dict()
    given = {name: t for name, t in tensors.items() if not name.startswith("loss.")}
    missing, foreign = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f"{n} {tuple(given[n].shape)} for {tuple(own[n].shape)}"
        for n in own
        if n in given and given[n].shape != own[n].shape
    ]
    if missing or foreign or shapes:
        found = "; ".join(
            f"{what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unknown", foreign), ("wrong shape", shapes))
            if names
        )
        raise DataError(
            f"{where}: these weights are not those of {type(recipe.model).__name__} in recipe {recipe.name!r} "
            f"({found}). Use the recipe.json that was saved beside them."
        )
    broken = [n for n, t in given.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise DataError(
            f"{where}: {broken[0]} holds NaN or infinite weights ({len(broken)} of {len(given)} tensors do). The "
            "training diverged or the file is damaged; use an earlier checkpoint, or train again with a lower "
            "--optimiser.lr."
        )
    fill(embedder, given)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights and the recipe that explains them."""

    folder: Path
    recipe: Recipe

    def metric(self, shape: tuple[int, int, int], device: torch.device) -> DeepMetric:
        """The model, ready to embed images of this shape.

        Raises:
            DataError: if the weights are missing, damaged or of another model.
        """
        embedder = build(self.recipe, shape)
        load_weights(embedder, read_weights(self.folder / WEIGHTS), self.folder / WEIGHTS, self.recipe)
        return trained_metric(in_precision(embedder.to(device), self.recipe.precision).eval(), self.recipe.loss)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a JSON file.

    Raises:
        DataError: if the file is missing or is not JSON.
        ValueError: if it is JSON but no recipe.
    """
    try:
        return recipe_from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. A recipe is written beside every checkpoint.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error}). Copy recipe.json from the run again.") from error


def checkpoint(target: Path) -> Checkpoint:
    """The checkpoint of a run folder (its best one if its recipe chooses, else the last) or of a checkpoint folder.

    Raises:
        DataError: if there is none, or its recipe is damaged.
    """
    if not target.is_dir():
        raise DataError(f"{target}: no such folder. Give a run folder, or a folder with {WEIGHTS} and recipe.json.")
    if (target / WEIGHTS).exists():
        own, above = target / "recipe.json", target.resolve().parents[1] / "recipe.json"
        return Checkpoint(target, _saved_recipe(own if own.exists() else above))
    recipe = _saved_recipe(target / "recipe.json")
    kept = "best" if recipe.validation.choose and (target / "checkpoints" / "best" / WEIGHTS).exists() else "last"
    folder = target / "checkpoints" / kept
    if not (folder / WEIGHTS).exists():
        raise DataError(
            f"{target}: a run without a finished checkpoint. Continue it with: robustdml train {recipe.name} "
            f"--out {target} --resume"
        )
    return Checkpoint(folder, recipe)


def _saved_recipe(path: Path) -> Recipe:
    """A recipe that lies beside weights: if it cannot be read, the checkpoint is damaged."""
    try:
        return read_recipe(path)
    except ValueError as error:
        raise DataError(
            f"{error} The checkpoint cannot be rebuilt; copy its recipe.json from the run again."
        ) from error


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def last(self) -> Path:
        """A link to the newest complete checkpoint."""
        return self.path / "checkpoints" / "last"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to resume.

        Raises:
            DataError: if its folder is gone and the link to it is not.
        """
        if self.last.is_symlink() and not self.last.exists():
            raise DataError(
                f"{self.last} points at {self.last.readlink()}, which is gone. Put that folder back, or train into "
                "another one (--out)."
            )
        return self.last.exists()

    @property
    def begun(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "recipe.json").exists()

    def begin(self, recipe: Recipe, made_with: Json) -> None:
        """Write what is known before the first step.

        Raises:
            FileExistsError: if the folder already holds a run.
            OutputError: if it cannot be written.
        """
        if self.begun:
            raise FileExistsError(
                f"{self.path} already holds a run. Continue it with --resume, or choose another folder with --out."
            )
        write_json(self.path / "recipe.json", recipe_to_json(recipe))
        write_json(self.path / "provenance.json", made_with)

    def finish(self, made_with: Json) -> None:
        """Write provenance again, with the time of the end."""
        write_json(self.path / "provenance.json", made_with | {"end": now()})

    def log(self, entry: dict[str, Any]) -> None:
        """Append one object to log.jsonl."""
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / 'log.jsonl'}: {error.strerror}.") from error

    def cut_log(self, done: int) -> None:
        """Drop entries of steps that are about to be taken again."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the machine stopped
            if entry["step"] <= done:
                kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))

    def save(self, name: str, embedder: Embedder, loss: object, recipe: Recipe, state: Json, ranks: list[Json]) -> None:
        """A complete checkpoint under a new name, then `last` swapped to it; the one before is removed."""
        folder = self.path / "checkpoints" / name
        part = folder.with_name(f".{name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            save_weights(part / WEIGHTS, embedder, loss)
            write_json(part / "recipe.json", recipe_to_json(recipe))
            write_with(part / STATE, lambda path: torch.save(state, path))
            for rank, own in enumerate(ranks):
                write_with(part / f"state-{rank}.pt", partial(torch.save, own))
        except OutputError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
        link = self.last.with_name(".last.part")
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, self.last)
        for other in folder.parent.iterdir():  # the one before, and what a killed process left
            if other.name not in (folder.name, self.last.name, "best") and not other.is_symlink():
                shutil.rmtree(other, ignore_errors=True)

    def save_best(self, embedder: Embedder, loss: object, recipe: Recipe, why: Json) -> None:
        """The weights that validation prefers, with the figure that chose them."""
        folder = self.path / "checkpoints" / "best"
        write_json(folder / "recipe.json", recipe_to_json(recipe))
        save_weights(folder / WEIGHTS, embedder, loss)
        write_json(folder / "chosen.json", why)

    def state(self, rank: int) -> tuple[Path, Json, Json]:
        """Folder of the newest checkpoint, its state, and the state of one process.

        A process that the run did not have yet gets what the defense of the first one remembers.

        Raises:
            DataError: if there is none or it is damaged.
        """
        folder = self.last.resolve()
        try:
            shared = torch.load(folder / STATE, weights_only=True, map_location="cpu")
            own = folder / f"state-{rank}.pt"
            if own.exists():
                return folder, shared, torch.load(own, weights_only=True, map_location="cpu")
            first = torch.load(folder / "state-0.pt", weights_only=True, map_location="cpu")
            return folder, shared, {"memory": first["memory"]}
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} is missing, and a training cannot go on without it. Put it back, or train into "
                f"another folder (--out); the weights in {folder} can still be measured."
            ) from error
        except Exception as error:  # torch.load raises many kinds for damaged files, with advice on unpickling
            raise DataError(
                f"a state in {folder} is damaged ({type(error).__name__} while reading {STATE} and state-{rank}.pt). "
                "Train into another folder (--out), or put a copy back."
            ) from error
