"""A small real sweep in a process of its own, which faults are tried on."""

from __future__ import annotations

import subprocess
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
MOST_ATTEMPTS = 5


class ChaosSweep:
    """A sweep whose values do not depend on when what happens: one lane, and neither racing nor early stopping.

    Args:
        folder: folder of its inputs and database, which is made.
        storage: folder of the sweeps; inside the first if left out.
        tracking_uri: MLflow's; a file in the folder if left out.
    """

    def __init__(self, folder: Path, storage: Path | None = None, tracking_uri: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.storage = folder, storage or folder / "sweeps"
        self.tracking_uri = tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        write_sweep(
            folder,
            budget={"trials": 6},
            lanes={"max": 1, "pack": 2},
            training={"max_steps": 60, "max_length": 16},
            search={"sampler": "random", "early_stopping": False, "allocation": "round_robin", "min_results": 2},
            selection={"seeds": 2},
            storage=str(self.storage),
            mlflow={"tracking_uri": self.tracking_uri},
        )
        self.process: subprocess.Popen[bytes] | None = None

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
        return next(iter(self.storage.glob("tiny-*")), None)

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the journal."""
        return Journal.read(self.sweep / "journal.jsonl") if self.sweep else []

    def run(self) -> None:
        """Start the sweep."""
        self._start("run", "sweep.yaml")

    def _start(self, *arguments: str) -> None:
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], cwd=self.folder, stdout=log, stderr=log, env=environment(self.folder)
            )

    def wait_for_events(self, count: int) -> None:
        """Wait until the journal has so many events, or the sweep has ended."""
        until(lambda: len(self.events()) >= count or self._has_ended(), SWEEP_TIMEOUT_S)

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def wait(self) -> None:
        """Wait until the process has ended, as every one does by itself."""
        try:
            assert self.process is not None
            self.process.wait(SWEEP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the sweep did not end within {SWEEP_TIMEOUT_S:.0f} s") from error

    def resume_until_finished(self) -> None:
        """Resume the sweep, or run it where it had not begun, until it is finished."""
        for _ in range(MOST_ATTEMPTS):
            if self.sweep and SavedSweep.of(self.sweep).finished:
                return
            has_begun = self.sweep and SavedSweep.of(self.sweep).description
            self._start(*(["resume", str(self.sweep)] if has_begun else ["run", "sweep.yaml"]))
            self.wait()
        raise AssertionError(f"it is not finished after {MOST_ATTEMPTS} attempts")

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the sweep's processes whose title begins so."""
        found: list[psutil.Process] = []
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found += [child] if (child.cmdline() or [""])[0].startswith(name) else []
        return found
