"""Run the stages in a worker process, end a stage whose time is over, and go on in a new process after a crash."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.gpu_stages import Stage

ROOT = Path(__file__).parents[2]
TOTAL_LIMIT_S = 470.0
"""Seconds for all stages; a little below eight minutes, since ending a process takes a moment."""
START_LIMIT_S = 90.0
"""Seconds that a worker may take to import its libraries."""


@dataclass
class Result:
    """What became of a stage."""

    name: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    recommended: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every claim held."""
        return not self.problems

    def line(self) -> dict[str, Any]:
        """Return the fields of the stage's line."""
        fields = {"stage": self.name, "ok": self.ok, "seconds": round(self.seconds, 2), "figures": self.figures}
        return fields | {"skipped": self.skipped, "error": "; ".join(self.problems) or None}

    def add(self, kind: str, name: str, value: Any) -> None:
        """Add what a worker reported."""
        if kind == "figure":
            self.figures[name] = value
        elif kind == "skip":
            self.skipped[name] = value
        elif kind == "recommend":
            self.recommended[name] = value
        elif kind == "problem":
            self.problems.append(f"{name}: {value}" if value else name)


class Worker:
    """A process that runs stages one after another.

    Args:
        stages: stages to run.
        device: ``cuda`` or ``cpu``.
        small: whether to use tiny models.
        folder: folder for the models.
        end: time by which all stages are to have ended, of ``time.monotonic()``, which all processes share.
    """

    def __init__(self, stages: Sequence[Stage], device: str, small: bool, folder: Path, end: float) -> None:
        options = [device, str(int(small)), str(folder), str(end), *(json.dumps(asdict(stage)) for stage in stages)]
        environment = {
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # as in a lane
            "TOKENIZERS_PARALLELISM": "false",
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HF_HUB_OFFLINE": "1",
            "PEFT_SWEEP_CACHE": str(folder / "cache"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_stages.worker", *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def receive(self, deadline: float) -> tuple[str, str, Any]:
        """Return what the worker reports next, or ``("lost", REASON, None)`` if it ends or says nothing until then."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return "lost", "took longer than its limit", None
        if line is None:
            return "lost", f"its process ended with exit code {self._process.wait()}", None
        kind, name, value = json.loads(line)
        return kind, name, value

    def end(self) -> None:
        """Kill the worker and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)


def run_stages(
    stages: Sequence[Stage], device: str, small: bool, folder: Path, total_s: float = TOTAL_LIMIT_S
) -> Iterator[Result]:
    """Run the stages in order and yield their results.

    Args:
        stages: stages to run.
        device: ``cuda`` or ``cpu``.
        small: whether to use tiny models.
        folder: folder for the models.
        total_s: seconds that all stages may take.
    """
    end, pending = time.monotonic() + total_s, deque(stages)
    while pending:
        worker = Worker(_in_one_process(pending), device, small, folder, end)
        try:
            for stage in _in_one_process(pending):
                result, lost = _run_stage(worker, stage, end)
                pending.popleft()
                yield result
                if lost:
                    break
        finally:
            worker.end()


def _in_one_process(stages: Iterable[Stage]) -> list[Stage]:
    """Return the first stages that may share a process."""
    first, *others = stages
    return [first] if first.own_process else [first, *takewhile(lambda stage: not stage.own_process, others)]


def _run_stage(worker: Worker, stage: Stage, end: float) -> tuple[Result, bool]:
    """Return the result of a worker's next stage, and whether the worker is lost."""
    result, begin = Result(stage.name), time.monotonic()
    deadline = min(end, begin + START_LIMIT_S)
    while True:
        kind, name, value = worker.receive(deadline)
        if kind == "begin":
            begin = time.monotonic()
            deadline = min(end, begin + stage.limit_s)
        elif kind in ("end", "lost"):
            if kind == "lost":
                result.problems.append(name)
            result.seconds = time.monotonic() - begin
            return result, kind == "lost"
        else:
            result.add(kind, name, value)
