"""What a sweep waits for until its first lane works, and which of its processes take the processor meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks._processes import kind_of
from orchestrator.journal.events import Journal

INTERVAL_S = 0.1
DEADLINE_S = 300.0
TORCH = "libtorch_cpu"


def measure_startup(command: list[str], folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a sweep until its first lane works, end it, and return what it waited for.

    Args:
        command: command that runs the sweep.
        folder: folder to run it in, with the sweep's folder inside ``sweeps``.
        environment: its environment variables.

    Returns:
        ``milestones``: seconds from the command to the first process of each kind, to the journal's first event
        (``journal``), and to the first lane that works (``lane``). ``processor_seconds`` of all processes until then,
        by kind; ``processes`` that there were, and how many of those that lived then had loaded torch.

    Raises:
        RuntimeError: if no lane came to work within five minutes.
    """
    begin = time.time()
    sweep = psutil.Popen(
        command, cwd=folder, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    milestones: dict[str, float] = {}
    used: dict[tuple[int, float], tuple[str, float]] = {}
    processes: list[psutil.Process] = []
    try:
        while "lane" not in milestones:
            if sweep.poll() is not None or time.time() > begin + DEADLINE_S:
                raise RuntimeError(f"no lane of {' '.join(command)} worked after {time.time() - begin:.0f} s")
            for file in (folder / "sweeps").glob("*/journal.jsonl"):
                for event in Journal.read(file):
                    name = {"sweep": "journal", "lane": "lane"}.get(event["event"])
                    if name:
                        milestones.setdefault(name, event["time"] - begin)
            processes = [sweep, *sweep.children(recursive=True)]
            for process in processes:
                _note(process, used)
            time.sleep(INTERVAL_S)
        with_torch = sum(map(_has_torch, processes))
    finally:
        _end(sweep)
    seconds: dict[str, float] = defaultdict(float)
    for (_, created), (kind, one) in used.items():
        began = max(0.0, created - begin)  # processes count their time in hundredths from the machine's start
        milestones[kind] = min(milestones.get(kind, began), began)
        seconds[kind] += one
    return {
        "milestones": dict(sorted(milestones.items(), key=lambda item: item[1])),
        "processor_seconds": {**seconds, "all": sum(seconds.values())},
        "processes": len(used),
        "processes_with_torch": with_torch,
    }


def _note(process: psutil.Process, used: dict[tuple[int, float], tuple[str, float]]) -> None:
    """Note the kind of a process, which changes while it starts, and what it has used so far."""
    try:
        times = process.cpu_times()
        used[process.pid, process.create_time()] = (kind_of(process), times.user + times.system)
    except psutil.Error:  # it has ended
        return


def _has_torch(process: psutil.Process) -> bool:
    try:
        return any(TORCH in mapped.path for mapped in process.memory_maps())
    except psutil.Error:
        return False


def _end(sweep: psutil.Popen) -> None:
    """Interrupt the sweep, which ends its processes; kill what is left of them."""
    processes = [sweep, *sweep.children(recursive=True)] if sweep.is_running() else []
    if sweep.poll() is None:
        sweep.terminate()
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
