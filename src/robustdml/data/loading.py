"""Batches ahead of the step that needs them, decoded in worker processes or in one thread."""

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustdml.data.batches import slots
from robustdml.data.errors import DamagedImages, DataError
from robustdml.data.images import ImageSet, Pixels
from robustdml.draws import Draws

Item = TypeVar("Item")
Made = TypeVar("Made")
AHEAD = 2
"""Batches that each worker holds ready; with the one in use this bounds the memory that decoded images take."""
_MOST_WORKERS = 8


class Views(NamedTuple):
    """What one step of an epoch wants.

    Attributes:
        rows: of the image set, by items of `rows_per_item`.
        draws: a stream of this epoch.
    """

    rows: Int[Tensor, "r"]
    rows_per_item: int
    draws: Draws


class Loaded(NamedTuple):
    """The training views of one step; rows whose images are damaged are left out if that was asked for."""

    rows: Int[Tensor, "r"]
    images: Float[Tensor, "r c h w"]
    skipped: str = ""
    """What was left out, and why."""


def workers_for(data: ImageSet, device: torch.device, processes: int = 1) -> int:
    """Worker processes that pay: none for images in memory or on a CPU, whose cores train; else up to 8 per process."""
    if isinstance(data.images, Pixels) or device.type == "cpu":
        return 0
    return max(0, min(_MOST_WORKERS, (os.cpu_count() or 1) // processes - 1))


class Loader:
    """Training views, step by step, in the order they are asked for whatever the number of workers.

    Args:
        data: the images; every worker holds a copy of the list of files, not of the images.
        workers: processes that decode ahead; 0 decodes when a step needs it. They are started once and kept.
        skip_damaged: leave out pairs with an image that cannot be read, with a warning that names it, instead of
            raising.
    """

    def __init__(self, data: ImageSet, *, workers: int = 0, skip_damaged: bool = False) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}.")
        self.data, self.skip_damaged = data, skip_damaged
        self.workers = workers
        self._queue = _Queue()
        self._processes: DataLoader[Any] | None = None

    def epoch(self, steps: Sequence[Views]) -> Iterator[Loaded]:
        """The views of each step.

        Raises:
            DataError: if an image cannot be read and is not to be skipped.
        """
        if self.workers and steps and self._processes is None:
            self._processes = self._started(max(len(step.rows) for step in steps))
        if self._processes is None:
            made: Iterator[Loaded | DataError] = (_load(self.data, step, self.skip_damaged) for step in steps)
        else:
            self._queue.steps = list(steps)
            with _ignored_ctrl_c():  # Ctrl-C goes to the whole group; workers leave it to the training process
                made = iter(self._processes)
        for found in made:
            if isinstance(found, DataError):
                raise found
            if found.skipped:
                warnings.warn(found.skipped, stacklevel=2)
            yield found

    def _started(self, rows: int) -> "DataLoader[Any] | None":
        size = rows * torch.Size(self.data.shape).numel() * 4
        workers = min(self.workers, _fits(size))
        if workers < self.workers:
            warnings.warn(
                f"{workers} of {self.workers} workers are started: /dev/shm has too little room for more batches of "
                f"{size >> 20} MiB. Enlarge it (docker run --shm-size) or choose fewer with --workers.",
                stacklevel=2,
            )
        if not workers:
            return None
        return DataLoader(
            _Steps(self.data, self.skip_damaged),
            batch_size=None,
            sampler=self._queue,
            num_workers=workers,
            prefetch_factor=AHEAD,
            collate_fn=_as_it_is,
            worker_init_fn=_deaf,
            persistent_workers=True,
            multiprocessing_context="spawn",  # a fork would copy locks of threads that it does not copy
        )


class _Queue:
    """The steps that workers shall do next."""

    steps: list[Views]

    def __init__(self) -> None:
        self.steps = []

    def __iter__(self) -> Iterator[Views]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class _Steps(Dataset[Any]):
    """What a worker does."""

    data: ImageSet
    skip_damaged: bool

    def __getitem__(self, step: Views) -> Loaded | DataError:
        return _load(self.data, step, self.skip_damaged)


def _load(data: ImageSet, step: Views, skip_damaged: bool) -> Loaded | DataError:
    """Errors are returned: raised in a worker they would arrive as a traceback in text."""
    rows, numbers = step.rows, slots(step.rows, step.rows_per_item)
    try:
        return Loaded(rows, data.views(rows, numbers, step.draws))
    except DamagedImages as error:
        if not skip_damaged:
            return error
        damaged = torch.isin(rows, error.index).reshape(-1, step.rows_per_item).any(dim=1)
        kept = ~damaged.repeat_interleave(step.rows_per_item)  # a pair without its partner is none
        said = f"{len(rows) - int(kept.sum())} rows of a batch were skipped: {error}"
        return Loaded(rows[kept], data.views(rows[kept], numbers[kept], step.draws), said)
    except DataError as error:
        return error


def _as_it_is(value: Any) -> Any:
    return value


def _deaf(worker: int) -> None:
    """Leave Ctrl-C to the training process; SIGTERM is how that ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _ignored_ctrl_c() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C from their first instruction on."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _fits(size: int) -> int:
    """Workers whose batches find room in shared memory."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else size << 20
    return max(0, (free // max(size, 1) - 1) // AHEAD)


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """What `make` returns for each item, the next one being made in a thread while the last one is used."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = None
        for item in items:
            following = thread.submit(make, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
