"""Several processes for one command, without a launcher: torch's own, started from here."""

import logging
import os
import sys

from robustdml.cli.failures import FAILED, INTERRUPTED, UNRELIABLE, ChildFailure, UsageError

PATIENCE_SECONDS = 300
"""How long a process may take to finish its batch and save after Ctrl-C."""


def started_elsewhere() -> bool:
    """Whether this is one of several processes already (torchrun, accelerate launch, or `spread`)."""
    return "RANK" in os.environ


def wanted(processes: int | None, device: str | None) -> int:
    """How many processes to run: one on the CPU or on a named GPU, otherwise one per visible GPU.

    Raises:
        UsageError: for less than one, or several on one GPU.
    """
    if processes is not None and processes < 1:
        raise UsageError(f"--processes must be at least 1, got {processes}.")
    if device is not None and device.startswith("cuda:"):
        if processes is not None and processes > 1:
            raise UsageError(f"--processes {processes} needs as many GPUs, but --device {device} names one.")
        _see_only(device.removeprefix("cuda:"))
        return 1
    if processes is not None or device == "cpu":
        return processes or 1
    import torch

    return max(1, torch.cuda.device_count())


def _see_only(number: str) -> None:
    """Make one GPU the first and only one, before torch looks for any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = number
    elif number.isdigit() and int(number) < len(visible.split(",")):
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(number)]


def leave(code: int) -> None:
    """End this process if it is one of several, once all have come so far; else nothing happens.

    Nothing is taken down: threads of torch's exchange that still run would now and then abort an ordinary exit.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spread(count: int, verb: str, argv: list[str]) -> int:
    """Run the same command on `count` processes of this machine, and return its exit code.

    Raises:
        ChildFailure: with code and message of the first process that failed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # the launcher's own remarks; each failure is told once, in our words
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(PATIENCE_SECONDS))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "robustdml.cli.main", verb, *argv)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode == UNRELIABLE:
            return UNRELIABLE
        code = first.exitcode if 0 < first.exitcode < 128 else FAILED
        message = (
            first.message if code == first.exitcode else f"a process ended with code {first.exitcode}: {first.message}"
        )
        raise ChildFailure(code, message) from error
    except SignalException:
        return INTERRUPTED  # the first process has said how to continue
    finally:
        logging.disable(logging.NOTSET)
    return 0
