"""A lane of two workers without Ray: this process and a second one, in a gloo group of their own."""

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
PATIENCE = 300
READY = "ready"


@contextmanager
def second_worker(module: str, folder: Path, backend: str = "gloo") -> Iterator[Ranks]:
    """Rank 0's view of a lane whose rank 1 is another process, which runs ``tests.lanes.MODULE FOLDER``.

    It must end well by itself, unless this process has failed.
    """
    command = [sys.executable, "-m", f"tests.lanes.{module}", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        while not (folder / READY).exists():
            assert other.poll() is None, "the second worker has ended before it began"
            time.sleep(0.05)
        with process_group(0, folder, backend) as ranks:
            yield ranks
        assert other.wait(PATIENCE) in (0, -signal.SIGKILL)
    finally:
        other.kill()
        other.wait()


@contextmanager
def process_group(rank: int, folder: Path, backend: str = "gloo") -> Iterator[Ranks]:
    """Of two processes that meet through a file."""
    if rank:
        (folder / READY).touch()
    place, patience = f"file://{folder / 'meeting'}", timedelta(seconds=PATIENCE)
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=2, timeout=patience)
    try:
        yield Ranks.here()
    finally:
        with suppress(RuntimeError):  # the other may be gone
            dist.destroy_process_group()
