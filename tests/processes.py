"""Programs that run in two processes at once, as under torchrun."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import robustdml


def in_two_processes(folder, program, timeout=300):
    """Run a program in `folder`, once as rank 0 and once as rank 1; fail if either does."""
    ending = "from robustdml.cli.processes import leave\nleave(0)"
    (folder / "worker.py").write_text(f"{program}\n{ending}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(robustdml.__file__).parents[1]),  # the sources of this process, wherever they are
    }  # fmt: skip
    with ExitStack() as cleaning:
        workers = []
        for rank in "01":
            worker = subprocess.Popen(
                [sys.executable, "worker.py"], cwd=folder, env=shared | {"RANK": rank, "LOCAL_RANK": rank},
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            workers.append(cleaning.enter_context(worker))
            cleaning.callback(worker.kill)  # before it is waited for; of a worker that has ended, nothing happens
        for worker in workers:
            _, err = worker.communicate(timeout=timeout)
            assert worker.returncode == 0, err
