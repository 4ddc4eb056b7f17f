"""A small real sweep in a process of its own, which faults are tried on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from orchestrator.journal.events import Journal
from orchestrator.sweep.saved_state import SavedSweep
from tests.polling import until
from tests.small_sweep import COMMAND, environment, write_sweep

SWEEP_TIMEOUT_S = 600.0
REPOSITORY = Path(__file__).parents[1]
METHOD = Path(__file__).with_name("_chaos_method.py")
HINT = "continue with: "


class ChaosSweep:
    """A sweep whose values do not depend on when what happens: it neither races nor stops trials early.

    Args:
        folder: folder of its inputs and database, which is made.
        storage: folder or URI of the sweeps; a folder inside the first if left out.
        tracking_uri: MLflow's; a file in the folder if left out.
        changes: sections of sweep.yaml that are different.
    """

    def __init__(self, folder: Path, storage: Path | str = "", tracking_uri: str = "", **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.storage = folder, str(storage or folder / "sweeps")
        self.tracking_uri = tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        self.kill_itself: tuple[str, int] | None = None
        """Whether the next process kills itself: ``before`` or ``after`` the journal has so many lines."""
        config: dict[str, Any] = {
            "methods": ["chaos_lora", "linear_probe"],
            "plugins": ["chaos_lora.py"],
            "budget": {"trials": 6},
            "lanes": {"max": 1, "pack": 2},
            "training": {"max_steps": 60, "max_length": 16},
            "search": {"sampler": "random", "early_stopping": False, "allocation": "round_robin", "min_results": 2},
            "selection": {"seeds": 2},
            "storage": self.storage,
            "mlflow": {"tracking_uri": self.tracking_uri},
        }
        shutil.copy(METHOD, folder / "chaos_lora.py")
        write_sweep(folder, **config | changes)
        self.process: subprocess.Popen[bytes] | None = None
        self._output_before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def sweep(self) -> Path | None:
        """The sweep's folder; ``None`` before it is made."""
        root = self.folder / "sweeps" if "://" in self.storage else Path(self.storage)
        return next(iter(root.glob("tiny-*")), None)

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the journal."""
        return Journal.read(self.sweep / "journal.jsonl") if self.sweep else []

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to be done."""
        return self.sweep is not None and SavedSweep.of(self.sweep).finished

    def has_begun(self) -> bool:
        """Return whether the journal has a first event, without which there is nothing to resume."""
        return any(event["event"] == "sweep" for event in self.events())

    def start(self) -> None:
        """Start the sweep, or resume it where it has begun."""
        arguments = ["resume", str(self.sweep)] if self.has_begun() else ["run", "sweep.yaml"]
        command = COMMAND
        if self.kill_itself:
            moment, lines = self.kill_itself
            command = [sys.executable, "-m", "benchmarks._chaos_driver", moment, str(lines)]
        variables = environment(self.folder) | {"CHAOS_FOLDER": str(self.folder)}
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self._output_before = len(self.output())
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=self.folder, stdout=log, stderr=log, env=variables
            )

    def output(self) -> bytes:
        """Return all that the sweep's processes have printed."""
        log = self.folder / "output.log"
        return log.read_bytes() if log.exists() else b""

    def says_how_to_continue(self) -> bool:
        """Return whether the last process, or the one beside it, has printed the line to resume."""
        return HINT.encode() in self.output()[self._output_before :]

    def log(self) -> str:
        """Return the sweep's own log."""
        log = self.sweep / "sweep.log" if self.sweep else None
        return log.read_text(errors="replace") if log and log.exists() else ""

    def wait_for_events(self, count: int, seconds: float = SWEEP_TIMEOUT_S) -> None:
        """Wait until the journal has so many events, or the process has ended."""
        until(lambda: len(self.events()) >= count or self.has_ended(), seconds)

    def has_ended(self) -> bool:
        """Return whether the sweep's process has ended."""
        return self.process is not None and self.process.poll() is not None

    def has_succeeded(self) -> bool:
        """Return whether the sweep's process has ended, and with exit code 0."""
        return self.process is not None and self.process.poll() == 0

    def wait(self, seconds: float = SWEEP_TIMEOUT_S) -> float:
        """Wait until the process has ended, as every one does by itself; return the seconds that it took."""
        began = time.monotonic()
        try:
            assert self.process is not None
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the sweep did not end within {seconds:.0f} s") from error
        return time.monotonic() - began

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the sweep's processes whose name or title begins so."""
        found: list[psutil.Process] = []
        for process in self.tree()[1:]:
            with suppress(psutil.NoSuchProcess):
                titles = {process.name(), *process.cmdline()[:1]}
                found += [process] if any(title.startswith(name) for title in titles) else []
        return found

    def tree(self) -> list[psutil.Process]:
        """Return the sweep's process and all that come from it; none once it has ended."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []
