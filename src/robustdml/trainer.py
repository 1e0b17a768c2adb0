"""One run in progress: its batches, its steps, and what it needs to be resumed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustdml.data.batches import Batches, whole_parts
from robustdml.data.images import ImageSet
from robustdml.data.loading import Loader, Views
from robustdml.deep_metric import trained_metric
from robustdml.defenses.defense import Mean, clean_embeddings
from robustdml.draws import Draws, own_generators
from robustdml.evaluate import accuracy, checked, collapse_statistics
from robustdml.losses import Loss, TripletLoss
from robustdml.losses.tuples import mine
from robustdml.models.embedder import Embedder, fill
from robustdml.recipe import Recipe
from robustdml.runs import in_precision, load_weights
from robustdml.serial import Json
from robustdml.types import Batch, arange_like


@dataclass
class Position:
    """Where a run is: epochs done, steps done in this epoch, and optimiser steps in all."""

    epoch: int = 0
    step: int = 0
    total: int = 0


@dataclass
class Trainer:
    """One run in progress."""

    recipe: Recipe
    data: ImageSet
    accelerator: Accelerator
    embedder: Embedder
    loss: Loss
    optimisers: dict[str, torch.optim.Optimizer]
    memory: dict[str, Tensor]
    position: Position
    best: float
    draws: Draws
    workers: int = 0

    def __post_init__(self) -> None:
        self.running = in_precision(self.embedder, self.recipe.precision)
        self.averaged = None
        if self.recipe.averaging:
            update = get_ema_multi_avg_fn(self.recipe.averaging)
            self.averaged = AveragedModel(self.embedder, multi_avg_fn=update, use_buffers=True)
        self.loader = Loader(self.data, workers=self.workers, skip_damaged=self.recipe.damaged == "skip")

    @property
    def result(self) -> Embedder:
        """The embedder that is judged and saved: the average of the weights if the recipe wants it."""
        return self.embedder if self.averaged is None else cast(Embedder, self.averaged.module)

    def mean(self, value: Tensor) -> Tensor:
        """The average of a tensor over processes."""
        return self.accelerator.reduce(value.detach().clone(), "mean")

    def batches(self) -> list[Int[Tensor, "r"]]:
        """What this process sees in the current epoch, step by step."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return self.recipe.batches.epoch(
            self.data.labels,
            self.data.split.train,
            draws=self.draws.under("epoch", self.position.epoch),
            rank=rank,
            world=world,
        )

    def loaded(self, steps: list[Int[Tensor, "_"]]) -> Iterator[Batch]:
        """The training views of some steps of the current epoch, on the device."""
        draws = self.draws.under("epoch", self.position.epoch)
        device, batches = self.accelerator.device, self.recipe.batches
        for views in self.loader.epoch([Views(rows, batches.rows_per_item, draws) for rows in steps]):
            images, index = checked(self.data.name, views.images).to(device), views.rows.to(device)
            yield Batch(images, self.data.labels[views.rows].to(device), index, batches.triplets(index))

    def step(self, batch: Batch) -> dict[str, float]:
        """One batch: as many optimiser steps as the defense asks for; none if no process has an image of it."""
        recipe, position = self.recipe, self.position
        rows = self._of_every_process(len(batch.index))
        if not any(rows):
            return {"loss": 0.0}
        parts, mean = self._cut(batch, min(rows)), self.mean if all(rows) else torch.Tensor.detach
        progress = (position.epoch + position.step / max(1, self.steps_per_epoch)) / recipe.epochs
        turns = [(name,) for name in self.optimisers] if recipe.alternate else [tuple(self.optimisers)]
        turn, repeat, logs = 0, 0, {"loss": 0.0}
        while turn < len(turns):
            for optimiser in self.optimisers.values():
                optimiser.zero_grad(set_to_none=True)
            draws = self.draws.under("epoch", position.epoch, position.step, repeat)
            logs, again = self._passes(parts, sum(rows), progress, draws, mean)
            self._update(turns[turn])
            repeat += 1
            turn += not self.anywhere(again)  # a process without images goes along
        if self.accelerator.num_processes > 1:  # so that all log the run's loss, and stop together if it is not finite
            own = torch.tensor(logs["loss"] * len(batch.index), device=self.accelerator.device)
            logs["loss"] = float(self.accelerator.reduce(own, "sum")) / sum(rows)
        return logs

    def _of_every_process(self, number: int) -> list[int]:
        if self.accelerator.num_processes == 1:
            return [number]
        return self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).tolist()

    def _cut(self, batch: Batch, fewest: int) -> list[Batch]:
        """The parts of a batch; as many on every process, since all must ask for means alike.

        A part has two rows at least, which batch statistics need. If a process has no rows none asks for means, and
        each cuts what it has.
        """
        batches = self.recipe.batches
        items = (fewest or len(batch.index)) // max(2, batches.rows_per_item)
        parts = whole_parts(arange_like(batch.index), batches.rows_per_item, min(self.recipe.accumulate, max(1, items)))
        return [piece(batch, part, batches) for part in parts]

    def _passes(
        self, parts: list[Batch], total: int, progress: float, draws: Draws, mean: Mean
    ) -> tuple[dict[str, float], bool]:
        """Forward and backward through the parts of a batch: what to log, and whether it is asked for again.

        The gradient is that of the mean over the `total` rows of all processes. Every part begins with the memory of
        the step before, and they leave one: the mean over their rows.
        """
        logs, again, memories = {"loss": 0.0}, False, []
        shares = [len(part.index) / sum(len(p.index) for p in parts) for part in parts]
        for part, share in zip(parts, shares, strict=True):
            with own_generators(draws.number("layers")):  # dropout depends on the step alone
                out = self.recipe.defense(
                    self.running, self.loss, part, memory=self.memory, progress=progress, draws=draws, mean=mean
                )
                (out.loss * (len(part.index) / total * self.accelerator.num_processes)).backward()
            memories.append(out.after_backward() if out.after_backward else out.memory)
            again = out.again
            for name, value in {"loss": float(out.loss.detach()), **out.logs}.items():
                logs[name] = logs.get(name, 0.0) + value * share
        if len(parts) > 1:  # weighted alike everywhere: processes that cut otherwise would drift apart
            shares = mean(torch.tensor(shares, device=self.accelerator.device)).tolist()
        if parts:
            self.memory = _merged(memories, shares)
        return logs, again

    def _update(self, names: tuple[str, ...]) -> None:
        recipe = self.recipe
        weights = [p for o in self.optimisers.values() for g in o.param_groups for p in g["params"]]
        average_gradients(weights, self.accelerator)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(weights, recipe.clip)
        for name in names:
            for group in self.optimisers[name].param_groups:
                group["lr"] = self._rate(name)
            self.optimisers[name].step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.embedder)
        self.position.total += 1

    def _rate(self, group: str) -> float:
        recipe = self.recipe
        return recipe.groups.get(group, recipe.optimiser).lr * self._shrinkage()

    def _shrinkage(self) -> float:
        return self.recipe.shrinkage(self.position.epoch + self.position.step / max(1, self.steps_per_epoch))

    def rates(self) -> dict[str, float]:
        """The learning rate, and those of groups with settings of their own."""
        common = self.recipe.optimiser.lr * self._shrinkage()
        return {"lr": common} | {f"lr/{name}": self._rate(name) for name in self.recipe.groups}

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        items = self.recipe.batches.items * self.accelerator.num_processes
        return math.ceil(len(self.data.split.train) / items)

    def monitors(self, batch: Batch) -> dict[str, float]:
        """Collapse monitors on the clean images of a batch."""
        z, metric = clean_embeddings(self.running, batch.images), trained_metric(self.running, self.loss)
        found = collapse_statistics(metric, z)
        if isinstance(self.loss, TripletLoss):
            draws = self.draws.under("monitor", self.position.total)
            triplets = batch.triplets or mine(self.loss, z, batch.labels, draws=draws, index=batch.index)
            found["active_triplets"] = float(self.loss.active(torch.stack(triplets.of(z), dim=1)).float().mean())
        if metric.prototypes is not None:
            found["accuracy"] = accuracy(z, batch.labels, metric.prototypes)
        return found

    def broken(self) -> list[str]:
        """Tensors of model and loss that hold NaN or infinite numbers on any process."""
        tensors = [*self.embedder.state_dict().items(), *(("loss " + n, p) for n, p in self._weights_of_loss())]
        found = [n for n, t in tensors if t.is_floating_point() and not bool(torch.isfinite(t).all())]
        elsewhere = self.anywhere(bool(found))
        return found or ["a tensor of another process"] * elsewhere

    def state(self) -> Json:
        """What a resumed run needs besides weights, the same on all processes."""
        return {
            "position": [self.position.epoch, self.position.step, self.position.total],
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "best": self.best,
            "processes": self.accelerator.num_processes,
        } | ({} if self.averaged is None else {"weights": self.embedder.state_dict()})

    def restore(self, state: Json, tensors: dict[str, Tensor], where: Path) -> None:
        """Put back what `state` told, and the tensors that were saved with it in the file `where`."""
        load_weights(self.result, tensors, where, self.recipe)
        if self.averaged is not None:
            self.embedder.load_state_dict(state["weights"])
            self.averaged.n_averaged.fill_(state["position"][2])
        if isinstance(self.loss, nn.Module):
            of_loss = {n.removeprefix("loss."): t for n, t in tensors.items() if n.startswith("loss.")}
            self.loss.load_state_dict(of_loss)
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.position = Position(*state["position"])
        self.best = state["best"]

    def own_state(self) -> Json:
        """What a resumed run needs of this process: memory of the defense, running statistics of model and loss."""
        memory = {name: t.detach().cpu() for name, t in self.memory.items()}
        if self.accelerator.num_processes == 1:  # its statistics are saved with the weights
            return {"memory": memory}
        own = {part: {n: t.detach().cpu() for n, t in _buffers(m).items()} for part, m in self._modules().items()}
        return {"memory": memory, "buffers": own}

    def restore_own(self, own: Json, processes: int) -> None:
        """Put back what `own_state` told; statistics only where as many processes go on, each with its own."""
        self.memory = own["memory"]
        if processes == self.accelerator.num_processes:
            for part, module in self._modules().items():
                fill(module, own.get("buffers", {}).get(part, {}))

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is up on any process: all must save, stop and repeat together."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)

    def _weights_of_loss(self) -> Iterable[tuple[str, nn.Parameter]]:
        return self.loss.named_parameters() if isinstance(self.loss, nn.Module) else ()

    def _modules(self) -> dict[str, nn.Module]:
        return {"embedder": self.embedder} | ({"loss": self.loss} if isinstance(self.loss, nn.Module) else {})


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """What a module saves and no optimiser moves: running statistics, which each process gathers on its own."""
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: t for name, t in module.state_dict().items() if name not in weights}


def _merged(memories: list[dict[str, Tensor]], shares: list[float]) -> dict[str, Tensor]:
    """One memory of those that the parts of a batch leave: the mean of numbers, weighted by rows.

    Raises:
        ValueError: if the parts remember something else than numbers, and not the same.
    """
    first, *others = memories
    merged = dict(first)
    for name, value in first.items():
        values = [value, *(other[name] for other in others)]
        if all(v is value or torch.equal(v, value) for v in values):
            continue
        if value.ndim or not value.is_floating_point():
            raise ValueError(
                f"the defense remembers {name!r} of shape {tuple(value.shape)} for a part of a batch, and parts cannot "
                "share it. Set --accumulate 1."
            )
        merged[name] = torch.stack([v * share for v, share in zip(values, shares, strict=True)]).sum()
    return merged


def piece(batch: Batch, part: Int[Tensor, "p"], batches: Batches) -> Batch:
    """Consecutive rows of a batch; nothing is copied."""
    rows = slice(int(part[0]), int(part[-1]) + 1)
    index = batch.index[rows]
    return Batch(batch.images[rows], batch.labels[rows], index, batches.triplets(index))


def average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average gradients over processes in one flattened all-reduce; weights without a gradient count as zero."""
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    flat = accelerator.reduce(flat, "mean")
    for p, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = gradient.reshape(p.shape)
