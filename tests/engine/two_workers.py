"""A lane of two workers without Ray: this process and a second one, in a process group of gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from orchestrator.engine.ranks import Ranks

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
READY = "ready"


@contextmanager
def second_worker(module: str, folder: Path, backend: str = "gloo") -> Iterator[Ranks]:
    """Start rank 1 as another process, which runs ``python -m MODULE FOLDER``, and be rank 0.

    The other process must end without an error, or kill itself, unless this process has failed.
    """
    command = [sys.executable, "-m", module, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        while not (folder / READY).exists():
            assert other.poll() is None, "the second worker has ended before it was ready"
            time.sleep(0.05)
        with process_group(0, folder, backend) as ranks:
            yield ranks
        assert other.wait(TIMEOUT_S) in (0, -signal.SIGKILL)
    finally:
        other.kill()
        other.wait()


@contextmanager
def process_group(rank: int, folder: Path, backend: str = "gloo") -> Iterator[Ranks]:
    """Join a process group of two processes, which find each other through a file."""
    if rank:
        (folder / READY).touch()
    place, timeout = f"file://{folder / 'rendezvous'}", timedelta(seconds=TIMEOUT_S)
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=2, timeout=timeout)
    try:
        yield Ranks.current()
    finally:
        with suppress(RuntimeError):  # the other process may have died
            dist.destroy_process_group()
